"""Which partner may have which line (P6): asked in one place, by links, classes, the hub rule and ``to``."""

from __future__ import annotations

from collections.abc import Mapping

from instep.errors import NotAllowedError, RefusedError
from instep.model.ids import LineId, NodeName
from instep.net.messages.messages import Report
from instep.node.lines.line_home import LineHome
from instep.node.lines.line_service import LineService
from instep.node.runtime.runtime import Runtime

SECRETS = "secrets"
"""A node that names it in ``takes`` knows definitions of class ``secret``; others are offered none."""


class LinkPolicy:
    """Which partner may have which line (P6, M9-M13): both sides list each other, flags, class, hub rule, ``to``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.takes: dict[NodeName, tuple[str, ...]] = {}
        """The words of ``takes`` in the newest greeting of each partner that has connected."""

    def require_partner(self, who: NodeName) -> None:
        """``NotAllowedError`` ``not_listed`` unless this node lists ``who``."""
        if who not in self._runtime.settings.partners:
            me = self._runtime.name
            raise NotAllowedError(
                f"{me} does not list {who} as a partner",
                hint=f"on {me}: instep invite {who}, or: instep partner set {who} --replicate",
                code="not_listed",
                node=me,
                partner=who,
            )

    def why_not(self, who: NodeName, service: LineService) -> str | None:
        """Why ``who`` may not have the line, None when it may."""
        return self._why_not_by_link(who, service) or self._why_not_by_to(who, service)

    def current(self, service: LineService, reports: Mapping[NodeName, Report]) -> dict[NodeName, Report]:
        """The reports that still say something: of nodes that may have the line from here, or from a hub that may. What
        the writer reported while it followed, or a node that is no partner any more, has ended."""
        return {
            name: report
            for name, report in reports.items()
            if name != service.writer and self.why_not(NodeName(report.via or name), service) is None
        }

    def _why_not_by_to(self, who: NodeName, service: LineService) -> str | None:
        if who in (service.writer, service.line.origin) or service.offers_to(who):
            return None
        return f"{self._runtime.name} does not name {who} in to of {service.line.fileset}"

    def _why_not_by_link(self, who: NodeName, service: LineService) -> str | None:
        me = self._runtime.name
        partner = self._runtime.settings.partners.get(who)
        if partner is None:
            return f"{me} does not list {who} as a partner"
        if service.writer == who or service.line.origin == who:
            return None
        definition = service.known_definition()
        if definition is None:
            return f"{me} knows no generation of {service.line.fileset} yet"
        link, own = partner.link, service.is_written_here
        if definition.is_secret and SECRETS not in self.takes.get(who, (SECRETS,)):
            return f"{who} runs a version that does not know filesets of class secret: upgrade it"
        if not link.lets(definition.fileset_class, own_line=own):
            if not link.replicate:
                return f"the link of {me} to {who} has replicate off"
            if definition.is_secret:
                return f"{me} does not write {service.line.fileset}, and passes on nothing of class secret"
            if not own and not link.hub:
                return f"{me} does not write {service.line.fileset} and its link to {who} has hub off"
            return f"the link of {me} to {who} has data off, and {service.line.fileset} is of class data"
        return None

    def require(
        self, who: NodeName, service: LineService | None, line: LineId, *, is_home_asked: bool = False
    ) -> LineService:
        """The line's service when ``who`` may have it, else ``NotAllowedError`` ``link_denies``. A partner whose
        changes are taken may also look, without following: ``offers_from`` names it where ``to`` does not."""
        self.require_partner(who)
        if service is None:
            raise NotAllowedError(
                f"{self._runtime.name} has nothing of {line} for {who}", code="link_denies", line=str(line)
            )
        hint = f"on {self._runtime.name}: instep partner set {who} --replicate --data"
        why = self._why_not_by_link(who, service)
        if why is None and not (
            is_home_asked or (service.is_written_here and who in service.fileset.changes_from((who,)))
        ):
            why = self._why_not_by_to(who, service)
            if why is not None:
                names = ",".join(sorted({*(service.fileset.to or ()), who}))
                hint = f"on {self._runtime.name}: instep fileset set {line.fileset} to={names}"
        if why is not None:
            raise NotAllowedError(
                why,
                hint=hint,
                code="link_denies",
                line=str(line),
                partner=who,
            )
        return service

    def require_home(self, who: NodeName, service: LineService | None, line: LineId) -> LineHome:
        """The line's home when ``who`` may lock and change paths of it: ``NotAllowedError`` where its link or
        ``offers_from`` says no, ``RefusedError`` ``not_the_writer`` where the line is not written here."""
        found = self.require(who, service, line, is_home_asked=True)
        me, home = self._runtime.name, found.home
        if home is None:
            names = ",".join(sorted({*found.fileset.offers_from, who}))
            raise RefusedError(
                f"{me} does not write {line.fileset}, and passes no changes of {who} on to {found.writer}",
                hint=f"on {me}: instep fileset set {line.fileset} offers_from={names}",
                code="not_the_writer",
                line=str(line),
                writer=found.writer,
            )
        if who not in found.fileset.changes_from((who,)):
            names = ",".join(sorted({*found.fileset.offers_from, who}))
            raise NotAllowedError(
                f"{me} takes no changes of {line.fileset} from {who}",
                hint=f"on {me}: instep fileset set {line.fileset} offers_from={names}",
                code="offers_not_taken",
                line=str(line),
                partner=who,
            )
        return home
