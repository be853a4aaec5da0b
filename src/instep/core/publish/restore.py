"""Going back at a writer: recovery after an interrupted switch, rollback and restore, and a head that was adopted.

While a journal is open nothing is scanned or published. A restore publishes exactly the root that it planned, never
what a scan finds afterwards. A writer that adopted a newer head of its own, and whose tree is not that head, publishes
nothing until an operator says which of the two is right.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from instep.core.guards.held import HeldPaths, words_of
from instep.core.guards.losses import judge_losses
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.heads import PublishHeads
from instep.core.publish.state import PublishPhase, Run
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.counts import counted, which
from instep.model.ids import HeadRef, NodeName


class PublishRestore(PublishHeads):
    """A writer's acts on its own tree besides scanning it."""

    # --- recovery -------------------------------------------------------------------------------------------

    def _begin_recovery(self) -> None:
        if self._backoff.is_ready("recover", self._now):
            self._out.append(s.Recover(self._begin(PublishPhase.RECOVER)))

    def _recovered(self) -> None:
        self._needs_recovery = False
        self._recover_trouble = None
        self._backoff.clear("recover")
        self._unpublished.touch((), self._now, everything=True)

    def _recover_failed(self, trouble: Trouble) -> None:
        """Requests that wait are answered; the next attempt follows by itself, or at once with the next request."""
        self._recover_trouble = trouble
        self._retry_later("recover")
        waiting, self._requests = self._requests, []
        for request in waiting:
            self._out.append(p.GiveAnswer(request.request, p.NotPublished(trouble)))

    # --- rollback and restore -------------------------------------------------------------------------------

    def _restore_on(self, run: Run) -> bool:
        """Begin the next step of a restore; False once the tree holds what it should."""
        asked = run.restore
        if asked is None or run.is_restored:
            return False
        base = self._facts.head
        if run.plan is None:
            self._out.append(
                s.PlanRestore(self._begin(PublishPhase.PLAN), asked.target, base, asked.paths, asked.source)
            )
        else:
            self._unpublished.remember((), everything=True)
            self._out.append(
                s.Restore(self._begin(PublishPhase.RESTORE), asked.target, base, asked.paths, asked.source)
            )
        return True

    def _planned(self, plan: s.RestorePlan) -> None:
        run = self._run
        assert run is not None
        assert run.restore is not None
        run.plan = plan
        refusal = plan.missing or self._judge_restore(run, plan)
        if run.restore.is_dry_run:
            counts = self._restore_counts(plan)
            self._end_run(
                p.WouldPublish(counts.added, counts.changed, counts.removed, counts.changed_bytes, refusal)
            )
        elif refusal is not None:
            self._end_run(p.NotPublished(refusal))
        elif plan.tree.is_nothing:
            self._tree_is_there(run, plan)

    def _judge_restore(self, run: Run, plan: s.RestorePlan) -> Trouble | None:
        """The guards, for removals compared with the head."""
        assert run.restore is not None
        found, asked = plan.difference, run.restore
        refusal = judge_losses(found.losses, self._config.deletions, accepted=run.accepts_deletions)
        if refusal is None:
            return None
        number = asked.target.number
        word = "rollback" if asked.publishes else "restore"
        which = f" {number}" if asked.publishes else f" --generation {number}"
        command = f"instep {word} {self.line.fileset}{which} --accept-deletions"
        return replace(refusal, hint=f"when that is meant: {command}")

    def _restored(self, left: HeldPaths) -> None:
        run = self._run
        assert run is not None
        assert run.plan is not None
        assert run.restore is not None
        run.left = left
        number = run.restore.target.number
        text = f"the tree was brought to generation {number}; replaced files are in the archive"
        if left.total:
            are = which(left.total, "is", "are")
            text += (
                f"; {counted(left.total, 'path')} {are} not as it says: {words_of(left.listed, left.total)}"
            )
        self._note("restored", text, generation=number, author=run.restore.author)
        self._tree_is_there(run, run.plan)

    def _tree_is_there(self, run: Run, plan: s.RestorePlan) -> None:
        """The tree holds the requested generation: go on to the commit where a generation has to name it."""
        assert run.restore is not None
        run.is_restored = True
        head, asked = self._facts.head, run.restore
        is_head = head is not None and plan.difference.root == head.root
        is_whole = not asked.paths
        is_meant = asked.publishes or self._config.mode is p.PublishMode.AUTO
        if is_meant and not is_head and (is_whole or not self._facts.is_adopted):
            run.summary = plan.difference
            return
        if not is_whole and self._facts.missing is p.Missing.NOTHING:
            self._set(missing=p.Missing.RESTORED)
        if is_whole and is_head and self._facts.is_adopted:
            self._set(is_adopted=False)
            self._difference = None
        self._succeed()
        self._look_again()
        counts = plan.tree
        assert head is not None
        self._end_run(
            p.Unchanged(head)
            if counts.is_nothing
            else p.Published(
                head, counts.added, counts.changed, counts.removed, counts.changed_bytes, run.left
            )
        )

    def _restore_counts(self, plan: s.RestorePlan) -> s.TreeCounts:
        """The counts of a dry run: the change of the head, or the change of the tree where the head stays."""
        found, head = plan.difference, self._facts.head
        if head is not None and found.root == head.root:
            return plan.tree
        return s.TreeCounts(found.added, found.changed, found.removed, found.changed_bytes)

    def _restore_failed(self, event: s.RestoreFailed) -> None:
        """Nothing moved: only the asker gets an answer. A journal that is open has to be finished or undone first."""
        self._needs_recovery = event.is_open
        self._look_again()
        self._end_run(p.NotPublished(event.trouble))
        if event.is_open:
            self._recover_trouble = event.trouble
            self._retry_later("recover")

    def _look_again(self) -> None:
        """Scan the tree soon, also where publishing is manual: then only to report whether it differs from the head."""
        self._unpublished.touch((), self._now, everything=True)
        self._must_look = self._config.mode is p.PublishMode.MANUAL

    # --- a head that was adopted ----------------------------------------------------------------------------

    def _held_as_restored(self, run: Run, summary: p.ScanSummary) -> Trouble | None:
        """Compare the tree with an adopted head. None when they are the same, or an operator said that the tree is
        right; else why nothing of it is published. A held path that the head has may be an older one here."""
        if self._facts.twins:
            return None if run.is_over else twin_trouble(self.line.fileset, dict(self._facts.twins))
        if not self._facts.is_adopted:
            return None
        is_other = summary.added or summary.changed or summary.removed or summary.held.entries
        if run.parent == run.base and not is_other:
            self._set(is_adopted=False)
            self._difference = None
            return None
        self._difference = summary
        if run.is_over:
            return None
        return restored_trouble(self.line.fileset, self._facts, summary, tuple(self._holders))

    def _old_tree_found(self) -> None:
        """Hold the tree to the head as to one that was adopted: a commit of an old copy would undo the newer ones."""
        self._set(is_adopted=self._facts.head is not None)
        self._difference = None
        self._unpublished.touch((), self._now, everything=True)

    @property
    def _is_compared(self) -> bool:
        """Whether the tree was compared with the head that was adopted, where one was."""
        return not self._facts.is_adopted or self._difference is not None

    @property
    def _is_known_by_number_only(self) -> bool:
        """Whether the pages of an adopted head are missing here and no node in reach reported that it has the head."""
        return not self._facts.has_pages and not self._pages_from and self._is_asked

    def _held_trouble(self) -> Trouble | None:
        """For the standing: why an adopted head keeps this writer from publishing, once the tree was looked at."""
        if self._facts.twins:
            return twin_trouble(self.line.fileset, dict(self._facts.twins))
        if self._is_known_by_number_only:
            return known_by_number_only(self.line.fileset, self._facts)
        if not self._facts.is_adopted or self._difference is None:
            return None
        return restored_trouble(self.line.fileset, self._facts, self._difference, tuple(self._holders))


def known_by_number_only(fileset: str, facts: p.PublishFacts) -> Trouble:
    """Why a writer publishes nothing while no partner in reach has the manifest of its own newest generation."""
    number = facts.head.number if facts.head is not None else 0
    return Trouble(
        "restored",
        f"this node came back with an older state: generation {number}, the newest of this line, is known here by its "
        "number only, and no partner in reach has its manifest",
        Retry.LATER,
        4,
        f"bring a partner back that has generation {number}; or, when the tree here is right: "
        f"instep publish {fileset} --over",
        (("generation", number),),
    )


def twin_trouble(fileset: str, twins: Mapping[NodeName, HeadRef]) -> Trouble:
    """Why a writer stands ``held: generation_twice`` whose own number is at a partner, too, with both ways on."""
    who, (source, ref) = ", ".join(sorted(twins)), min(twins.items())
    return Trouble(
        "generation_twice",
        f"this node came back with an older state and published above it: generation {ref.number} at {who} is another "
        "one than here. Nothing is published until an operator says which is right",
        Retry.NEVER,
        4,
        f"see what {source} has: on {source}: instep restore {fileset} --to DIR; copy what is right into the tree "
        f"here; then, or when the tree here is right already: instep publish {fileset} --over",
        (("generation", ref.number), ("held_by", sorted(twins))),
    )


def restored_trouble(
    fileset: str, facts: p.PublishFacts, found: p.ScanSummary, holders: tuple[str, ...]
) -> Trouble:
    """Why a writer stands ``held: restored``: the difference in numbers, where the newer contents are, both ways on."""
    head = facts.head
    number = head.number if head is not None else 0
    who = f" {', '.join(sorted(holders))} reported it." if holders else ""
    if head != facts.base:
        what = f"the tree cannot be compared with generation {number}: no node that answers has its manifest"
    else:
        what = (
            f"the tree is not generation {number}, the newest of this line: of its paths {found.removed} "
            f"{which(found.removed, 'is', 'are')} missing here and {found.changed} "
            f"{which(found.changed, 'differs', 'differ')}, {found.added} more {which(found.added, 'is', 'are')} only "
            "here"
        )
        if found.held.entries:
            what += f"; {found.held.entries} could not be compared: {words_of(found.held.listed, found.held.total)}"
    return Trouble(
        "restored",
        f"this node came back with an older state or tree; {what}.{who} Nothing is published until an operator says "
        "which is right",
        Retry.NEVER,
        4,
        f"take the newest generation back: instep restore {fileset}; or, when the tree here is right: "
        f"instep publish {fileset} --over",
        (
            ("generation", number),
            ("missing", found.removed),
            ("changed", found.changed),
            ("only_here", found.added),
            ("held_by", sorted(holders)),
        ),
    )
