"""Users, tokens, sessions, the link that signs in once, and the audit."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from instep.api import access as api
from instep.errors import RefusedError, UnavailableError
from instep.net.trust.certs import Purpose, facts_of
from instep.node.access.caller import Caller
from instep.node.access.door import CALLER
from instep.node.access.people import BrowserSession, Identity, Token, User
from instep.node.balance.listeners import panel_origin
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import wall_ms


def _caller() -> Caller:
    caller = CALLER.get()
    assert caller is not None, "commands come in through the door"
    return caller


class AccessCommands(CommandHandlers):
    """Rights of others are given by admins of all filesets alone: the door asks for both."""

    # Users --------------------------------------------------------------------------------------------------

    async def user_list(self, asked: api.UserListCommand, speaker: Speaker) -> api.UsersDocument:
        records = self._context.access.records
        users: list[User | Identity] = [user for _, user in records.all(User)]
        users += [person for _, person in records.all(Identity)]
        return api.UsersDocument(
            tuple(
                api.UserDocument(
                    user.name, user.role.value, user.filesets, moment(user.created_ms), moment(user.signed_in_ms),
                    user.issuer if isinstance(user, Identity) else None,
                )
                for user in sorted(users, key=lambda user: user.name)
            )
        )  # fmt: skip

    async def user_add(self, asked: api.UserAddCommand, speaker: Speaker) -> api.UserChangeDocument:
        access = self._context.access
        self._require_known(asked.filesets)
        if access.records.is_of_provider(asked.name):
            raise RefusedError(
                f"the name {asked.name} belongs to a person whom the sign-in provider names",
                hint=f"instep user remove {asked.name}, where both are one person; else another name",
                code="name_taken",
            )
        old = access.records.get(User, asked.name)
        if asked.password is None:
            if old is None:
                raise RefusedError(
                    f"{asked.name} is a new user and needs a password",
                    hint=f"instep user add {asked.name} --password-file FILE",
                    code="no_password",
                )
            phc = old.phc
        else:
            phc = await access.hashed(asked.password)
        created_ms = wall_ms() if old is None else old.created_ms
        signed_in_ms = None if old is None else old.signed_in_ms
        user = User(
            name=asked.name, role=asked.given, filesets=asked.filesets, phc=phc, created_ms=created_ms,
            signed_in_ms=signed_in_ms,
        )  # fmt: skip
        if user == old:
            return api.UserChangeDocument(asked.name, False, 0)
        access.records.put(asked.name, user)
        ended = 0 if old is None or asked.password is None else self._end_sessions_of(asked.name)
        return api.UserChangeDocument(asked.name, True, ended)

    async def user_passwd(self, asked: api.UserPasswordCommand, speaker: Speaker) -> api.UserChangeDocument:
        access = self._context.access
        phc = await access.hashed(asked.password)
        user = access.records.get(User, asked.name)
        if user is None:
            raise RefusedError(
                f"there is no user {asked.name}", hint=f"instep user add {asked.name}", code="no_user"
            )
        user.phc = phc
        access.records.put(asked.name, user)
        return api.UserChangeDocument(asked.name, True, self._end_sessions_of(asked.name))

    async def user_remove(self, asked: api.UserRemoveCommand, speaker: Speaker) -> api.UserChangeDocument:
        records = self._context.access.records
        changed = records.remove_person(asked.name)
        tokens = records.revoke_tokens_of(asked.name) if changed else ()
        return api.UserChangeDocument(asked.name, changed, self._end_sessions_of(asked.name), tokens)

    def _end_sessions_of(self, user: str) -> int:
        return self._context.access.records.end_sessions(
            lambda _, session: session.name == user and not session.by_link
        )

    def _require_known(self, filesets: Iterable[str] | None) -> None:
        known = self._node.runtime.settings.filesets
        unknown = sorted(set(filesets or ()) - set(known))
        if unknown:
            raise RefusedError(
                f"there is no fileset {', '.join(unknown)} here",
                hint="instep fileset list",
                code="no_fileset",
                filesets=unknown,
            )

    # Tokens -------------------------------------------------------------------------------------------------

    async def token_list(self, asked: api.TokenListCommand, speaker: Speaker) -> api.TokensDocument:
        tokens = (token for _, token in self._context.access.records.all(Token))
        return api.TokensDocument(
            tuple(
                api.TokenDocument(
                    one.name, one.role.value, one.filesets, moment(one.created_ms), moment(one.expires_ms),
                    moment(one.used_ms), one.created_by,
                )
                for one in sorted(tokens, key=lambda one: one.name)
            )
        )  # fmt: skip

    async def token_create(self, asked: api.TokenCreateCommand, speaker: Speaker) -> api.TokenMadeDocument:
        self._require_known(asked.filesets)
        ttl_ms = None if asked.ttl_s is None else int(asked.ttl_s * 1000)
        secret, token = self._context.access.records.make_token(
            asked.name, asked.given, asked.filesets, ttl_ms, _caller().person
        )
        return api.TokenMadeDocument(
            token.name, token.role.value, token.filesets, secret, moment(token.expires_ms)
        )

    async def token_revoke(self, asked: api.TokenRevokeCommand, speaker: Speaker) -> api.TokenChangeDocument:
        return api.TokenChangeDocument(asked.name, self._context.access.records.revoke_token(asked.name))

    # Sessions -----------------------------------------------------------------------------------------------

    async def panel_login(self, asked: api.PanelLoginCommand, speaker: Speaker) -> api.PanelLinkDocument:
        settings = self._node.runtime.settings
        if settings.panel is None:
            raise RefusedError(
                "this node has no panel: panel is off in instep.toml",
                hint='write panel = "127.0.0.1:7480" into instep.toml, then: instep config reload',
                code="panel_off",
            )
        trouble = self._context.listeners.troubles.get("panel")
        if trouble is not None:
            raise UnavailableError(trouble, hint="instep check", code="panel_not_listening")
        code, until_ms = self._context.access.make_link(_caller())
        url = f"{panel_origin(settings)}/login#{quote(code)}"
        return api.PanelLinkDocument(url, code, moment(until_ms))

    async def session_list(self, asked: api.SessionListCommand, speaker: Speaker) -> api.SessionsDocument:
        sessions = self._context.access.records.all(BrowserSession)
        sessions.sort(key=lambda item: -item[1].created_ms)
        return api.SessionsDocument(
            tuple(
                api.SessionDocument(
                    one.name, one.role.value, one.filesets, key, one.address, one.agent, moment(one.created_ms),
                    moment(one.seen_ms), one.by_link,
                )
                for key, one in sessions
            )
        )  # fmt: skip

    async def session_end(self, asked: api.SessionEndCommand, speaker: Speaker) -> api.SessionsEndedDocument:
        ended = self._context.access.records.end_sessions(
            lambda key, session: asked.id in (None, key) and asked.user in (None, session.name)
        )
        return api.SessionsEndedDocument(ended)

    # Certificates -------------------------------------------------------------------------------------------

    async def certificate_list(
        self, asked: api.CertificateListCommand, speaker: Speaker
    ) -> api.CertificatesDocument:
        pki = self._node.pki
        kinds = [(purpose.value, pki.certificate(purpose)) for purpose in Purpose]
        kinds += [("ca", one) for one in pki.authorities()]
        shows = self._node.tls.shows
        if shows is not None:
            kinds.insert(0, ("shown", shows.chain.leaf))
        own = [(what, facts_of(one)) for what, one in kinds]
        issued = [
            api.CertificateDocument(
                one.purpose, one.name, one.pin, moment(one.not_after_ms), moment(one.revoked_at_ms)
            )
            for one in (pki.records() if pki.is_ca else ())
        ]
        rows = (
            api.CertificateDocument(what, one.subject, one.pin, moment(one.not_after_ms), None)
            for what, one in own
        )
        return api.CertificatesDocument(pki.is_ca, tuple(rows), tuple(issued), moment(pki.backed_up_at_ms()))

    # Audit --------------------------------------------------------------------------------------------------

    async def audit(self, asked: api.AuditCommand, speaker: Speaker) -> api.AuditDocument:
        return self._context.access.audit.rows(asked.since_ms, asked.before, asked.limit)
