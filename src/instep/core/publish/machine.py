"""The ``PublishMachine``: turns the tree of one own line into generations, and refuses to publish a disaster.

``scan -> guards -> validate -> reload -> commit -> announce``. Level triggered, one job at a time. Requests
of operators carry numbers; requests that wait when a scan starts share it, and each gets exactly one answer. A
writer with amnesia learns its own newer heads from its partners and goes on above them. Implements design
section 5.

Longer than 400 lines: every phase ends in a method of the one machine, and the next phase begins in another; what only
restores, hears heads or decides a standing lies beside it.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from instep.core import vocabulary as w
from instep.core.contract import check_all
from instep.core.guards.held import not_held
from instep.core.hook_writes import HookLoop
from instep.core.publish import contract
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.commit_facts import committed
from instep.core.publish.hold import EXPIRED, HOLD, beside_words
from instep.core.publish.restore import PublishRestore, known_by_number_only
from instep.core.publish.restore_vocabulary import WriterAnswer, WriterEffect, WriterEvent
from instep.core.publish.right_to_write import owes_a_generation
from instep.core.publish.standing import PublishSeen, publish_stand_of
from instep.core.publish.state import PublishJob, PublishPhase, Request, Run, sharing
from instep.core.publish.unpublished import YOUNG_MS
from instep.core.publish.vocabulary import PublishConfig, PublishMode, ScanSummary
from instep.errors import Retry
from instep.model.ids import HeadRef

LOOKING = (PublishPhase.SCAN, PublishPhase.PLAN, PublishPhase.RECOVER)
"""Phases that change nothing which is published."""
REQUESTS_MAX = 64
"""Requests waiting at once; more are answered with ``busy``."""


class PublishMachine(PublishRestore):
    """One own line."""

    phases = contract.PHASES
    numbered = (w.Cancel, p.AskPartners)
    early = (w.KeepGeneration, w.KeepEpoch, w.Cancel)
    save = p.SavePublish
    acts_and_saves = p.Commit

    def step(self, event: WriterEvent, now_ms: int) -> tuple[WriterEffect, ...]:
        """The only door: take in one event, begin what is missing, return the effects in order."""
        self._now = now_ms
        self._out = []
        self._take(event)
        if self._is_started:
            if self._job is None:
                self._begin_next()
            self._show_due()
            self._announce()
            self._tell()
        return check_all(contract.INVARIANTS, self, self._ordered())

    # --- events ---------------------------------------------------------------------------------------------

    def _take(self, event: WriterEvent) -> None:  # noqa: C901  one line a kind
        match event:
            case p.Started():
                self._start()
            case p.PublishConfigChanged():
                self._configure(event.config)
            case p.TreeChanged():
                self._hot.changed(event.paths, self._now, self._config.settle_max_ms)
                self._unpublished.touch(
                    event.paths, self._now, everything=event.is_overflow, trigger=self._config.trigger
                )
            case p.OldTreeFound():
                self._old_tree_found()
            case p.DiskTurned():
                self._look_anew()
            case w.RootBack():
                self._was_away = True
                self._backoff.clear_all()
                self._look_anew()
            case p.ContentMissed():
                self._content_missed(event.path)
            case w.WatchChanged():
                self._watch_changed(event.trouble)
            case p.PublishAsked() | s.RestoreAsked():
                self._asked(event)
            case p.HeadOfOursSeen():
                self._head_of_ours(event)
            case p.EpochSeen():
                self._epoch_seen(event)
            case p.PartnersAnswered():
                if event.req == self._ask_req:
                    self._ask_req = None
                    self._partners_answered(event.answered)
            case p.PartnerSeen():
                self._partners_answered((event.source,))
            case p.Paused():
                self._pause(event)
            case p.Resumed():
                self._pause(None)
            case p.RetryAsked():
                self._hook_loop = HookLoop()
                self._backoff.clear_all()
                self._unpublished.touch((), self._now, everything=True)
            case w.HookAdded():
                self._is_hook_due = True
            case w.TimerFired():
                self._timer(event.name)
            case _:
                job = self._end_job(event)
                if job is not None:
                    self._take_answer(job, event)
                    self._take_heard()

    def _take_answer(self, job: PublishJob, event: WriterAnswer) -> None:
        match event:
            case p.TreeScanned():
                self._scanned(event.summary)
            case p.ScanFailed():
                self._scan_failed(event.trouble)
            case p.CommitFailed():
                self._saved = None
                self._fail_run(event.trouble)
            case w.HookEnded():
                self._hook_ended(job, event)
            case p.Committed():
                self._committed(event.head)
            case s.RestorePlanned():
                self._planned(event.plan)
            case s.PlanFailed():
                self._end_run(p.NotPublished(event.trouble))
            case s.Restored():
                self._restored(event.left)
            case s.RestoreFailed():
                self._restore_failed(event)
            case s.TreeRecovered():
                self._recovered()
            case s.RecoverFailed():
                self._recover_failed(event.trouble)
            case p.ManifestFetched():
                self._backoff.clear("adopt")
                self._trouble = None
                self._pages_from.clear()
                self._adopt_tries = 0
                self._set(has_pages=True, base=self._facts.head)
                self._unpublished.touch((), self._now, everything=True)
            case p.FetchFailed():
                self._trouble = event.trouble
                self._retry_later("adopt")
                source = next(iter(self._pages_from))
                self._pages_from[source] = self._pages_from.pop(source)
                self._give_up_pages()
            case _:
                assert_never(event)

    def _start(self) -> None:
        self._is_started = True
        self._doubt_all()
        self._arm_full_look()
        self._ask_partners()

    def _configure(self, config: PublishConfig) -> None:
        if config == self._config:
            return
        old, self._config = self._config, config
        self._hook_loop = HookLoop()
        self._backoff.clear_all()
        if self._is_started:
            self._doubt_all()
            self._arm_full_look()
            if set(config.partners) - set(old.partners):
                self._ask_partners()

    def _asked(self, event: Request) -> None:
        refusal = self._refusal()
        if refusal is None and isinstance(event, p.PublishAsked) and event.accept_held:
            refusal = not_held(self.line.fileset, event.accept_held, self._facts.held)
        if refusal is not None:
            self._out.append(p.GiveAnswer(event.request, p.NotPublished(refusal)))
        elif isinstance(event, p.PublishAsked) and event.is_flush and self._config.mode is PublishMode.MANUAL:
            self._out.append(p.GiveAnswer(event.request, p.Unchanged(self._facts.head)))
        else:
            self._requests.append(event)
            self._backoff.clear("publish")
            self._backoff.clear("recover")
            if self._is_first_held and not (isinstance(event, p.PublishAsked) and event.is_flush):
                self._set(was_confirmed=True)

    def _refusal(self) -> w.Trouble | None:
        if len(self._requests) >= REQUESTS_MAX:
            return w.Trouble("busy", "too many publish requests wait already", Retry.LATER, 6)
        if self._facts.is_paused:
            resume = f"instep resume {self.line.fileset}"
            return w.Trouble(
                "paused", self._facts.paused_reason or "publishing is paused here", Retry.NEVER, 4, resume
            )
        return self._not_the_writer() or self._config.read_only

    def _timer(self, name: str) -> None:
        if name == "settle":
            self._due_shown = None
        elif name == "young":
            if self._config.mode is PublishMode.AUTO and self._unpublished.is_dirty:
                self._unpublished.touch((), self._now)
        elif name == "held":
            self._look_at_held()
        elif name == "hot":
            self._look_at_hot()
        elif name == "hold":
            self._unpublished.touch((), self._now)
        elif name == "rescan":
            if self._config.mode is PublishMode.AUTO or self._facts.held.total:
                self._look_anew()
            self._arm_full_look()
            if self._now - self._asked_at_ms >= self._config.rescan_ms:
                self._ask_partners()
        elif name == "ask":
            self._is_asked = self._is_asked or self._now >= self._ask_until_ms
            if not self._facts.was_confirmed:
                self._ask_partners()
        elif name.startswith("retry-"):
            self._backoff.come_due(name.removeprefix("retry-"))
            if name == "retry-publish":
                self._unpublished.touch((), self._now)

    # --- answers of a run -----------------------------------------------------------------------------------

    def _scanned(self, summary: ScanSummary) -> None:
        run = self._run
        assert run is not None
        run.summary = summary
        self._is_surveyed = True
        self._was_away = self._was_away and not summary.is_full
        if self._holding.scanned(self._now, summary.hold_path) and summary.hold_path is not None:
            self._note(EXPIRED, beside_words(summary.hold_path))
        if summary.cost is not None:
            self._cost = summary.cost
            self._arm_full_look()
        if summary.unsettled:
            self._unpublished.remember(summary.unsettled)
            self._out.append(w.SetTimer("young", self._now + YOUNG_MS))
        self._must_look = self._is_different = False
        restored = self._held_as_restored(run, summary)
        refusal = restored or self._judged(run, summary)
        self._count_missing(run, summary, refusal)
        if run.is_dry:
            held = self._held_after(summary)
            would = p.WouldPublish(
                summary.added, summary.changed, summary.removed, summary.changed_bytes, refusal, held
            )
            self._unpublished.give_back()
            self._is_different = refusal is not None or not self._is_unchanged(run, summary)
            if refusal is not None or not self._config.has_validate or not self._is_different:
                self._end_run(would)
            run.would = would
        elif restored is not None:
            self._hold_run(restored)
        elif run.is_look:
            self._is_different = refusal is not None or not self._is_unchanged(run, summary)
            self._unpublished.give_back()
            self._let_off(summary)
            self._succeed()
            self._end_run(p.Unchanged(self._facts.head))
        elif refusal is not None and self._facts.is_adopted:
            words = f"when that is meant: instep publish {self.line.fileset} --over --accept-deletions"
            self._hold_run(replace(refusal, hint=words) if refusal.code == "max_deletions" else refusal)
        elif refusal is not None:
            self._fail_run(refusal)
        else:
            self._hold(summary)
            self._arm_hot()
            if self._is_unchanged(run, summary):
                self._succeed()
                self._end_run(p.Unchanged(self._facts.head, self._facts.held))
            else:
                self._spare_hooks(run, summary)

    def _scan_failed(self, trouble: w.Trouble) -> None:
        if trouble.code == HOLD:
            self._drop_run()
            self._out.append(w.SetTimer("hold", self._holding.put_off(self._now, trouble)))
            return
        self._needs_recovery = trouble.code == "journal_open"
        self._fail_run(trouble)

    def _is_unchanged(self, run: Run, summary: ScanSummary) -> bool:
        if run.parent != run.base or (self._facts.twins and run.is_over):
            # Our newest generation is known by name only, or is at a partner with other contents: stand above it.
            return False
        if owes_a_generation(self._facts, self._config.node):
            return False
        if run.base is None:
            # An empty tree is a first generation only when an operator asked for it by hand.
            return summary.entries == 0 and not any(not r.is_flush for r in run.requests)
        return not (summary.added or summary.changed or summary.removed or summary.definition_changed)

    def _hook_ended(self, job: PublishJob, event: w.HookEnded) -> None:
        run = self._run
        assert run is not None
        trouble = _hook_trouble(event.kind, event.trouble) if event.trouble is not None else None
        if run.is_hook and trouble is None:
            self._is_hook_due = False
            self._succeed()
            self._end_run(p.Unchanged(self._facts.head))
        elif run.would is not None:
            self._end_run(replace(run.would, refusal=trouble))
        elif trouble is not None:
            self._fail_run(trouble)
        elif job.phase is PublishPhase.VALIDATE:
            run.is_validated = True
        else:
            run.is_reloaded = True

    def _committed(self, head: HeadRef) -> None:
        run = self._run
        assert run is not None
        assert run.summary is not None
        assert run.committing is not None
        if run.parent != self._facts.head:
            # A newer head of ours was adopted meanwhile: the generation just committed is not announced.
            self._drop_run()
            return
        if self._saved == run.committing:
            self._saved = committed(run.committing, head)
        self._facts = committed(self._facts, head)
        self._holders.clear()
        self._difference, self._is_hook_due = None, False
        summary = run.summary
        self._hot.published(summary.copied, self._now)
        self._large_published(run, summary)
        self._succeed()
        text = f"generation {head.number}: {summary.added} added, {summary.changed} changed, {summary.removed} removed"
        self._note("published", text, generation=head.number, author=run.author)
        if run.restore is not None:
            self._look_again()
        self._end_run(
            p.Published(
                head,
                summary.added,
                summary.changed,
                summary.removed,
                summary.changed_bytes,
                self._facts.held if run.restore is None else run.left,
            )
        )

    # --- what is missing ------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        if self._needs_recovery:
            self._begin_recovery()
            return
        if not self._facts.has_pages and self._fetch_adopted():
            return
        if self._is_run_stopped:
            self._drop_run()
            self._must_look = self._must_look or self._config.read_only is not None
        if self._run is None and not self._begin_run():
            return
        assert self._run is not None
        self._go_on(self._run)

    def _fetch_adopted(self) -> bool:
        """Fetch the adopted head's pages; nothing can be scanned against it before. False when no node in reach has
        them and an operator said that the tree here is right."""
        if self._is_known_by_number_only:
            return not self._goes_on_without_pages()
        if self._pages_from and self._backoff.is_ready("adopt", self._now):
            assert self._facts.head is not None
            source = next(iter(self._pages_from))
            self._out.append(p.FetchPages(self._begin(PublishPhase.FETCH), source, self._facts.head))
        return True

    def _goes_on_without_pages(self) -> bool:
        """Answer what waits. True for ``publish --over``: it goes on above the head, for which the number is enough."""
        if self._run is not None:
            self._drop_run()
        trouble = known_by_number_only(self.line.fileset, self._facts)
        waiting, self._requests = self._requests, []
        for request in waiting:
            if isinstance(request, p.PublishAsked) and request.is_over:
                self._requests.append(request)
            else:
                self._out.append(p.GiveAnswer(request.request, p.NotPublished(trouble)))
        if not self._requests:
            return False
        self._go_on_without_pages()
        return True

    def _drop_run(self) -> None:
        """The head moved below this run: its requests wait for the next one."""
        assert self._run is not None
        back: list[Request] = list(self._run.requests)
        if self._run.restore is not None:
            back.append(self._run.restore)
        self._requests = back + self._requests
        has_moved = self._is_run_passed
        self._unpublished.give_back()
        self._run = None
        if has_moved:
            self._refuse_over()

    def _begin_run(self) -> bool:
        """Begin a run for pending work: a rollback first, then requests, then changes that are due by themselves."""
        if self._facts.is_paused or self._not_the_writer() is not None:
            self._answer_all_refused()
            return False
        if self._config.read_only is not None:
            self._answer_all_refused()
        if not self._is_asked:
            return False
        restore = next((r for r in self._requests if isinstance(r, s.RestoreAsked)), None)
        if restore is not None:
            self._requests.remove(restore)
            self._run = self._new_run((), restore)
            return True
        by_hand = self._config.mode is PublishMode.MANUAL
        self._is_different = self._is_different or (by_hand and self._unpublished.is_touched)
        asked = [r for r in self._requests if isinstance(r, p.PublishAsked)]
        if self._holding.is_waiting(self._now) and all(r.is_flush for r in asked):
            return False
        if asked:
            shared = sharing(asked)
            self._requests = [r for r in self._requests if r not in shared]
            self._run = self._new_run(shared)
            return True
        is_for_hook = self._is_hook_due and self._config.has_reload and self._facts.head is not None
        if is_for_hook and self._backoff.is_ready("publish", self._now):
            self._run = self._new_run((), is_hook=True)
            return True
        if not self._is_due():
            return False
        is_look = by_hand and not self._owes()
        self._run = self._new_run((), is_look=is_look)
        return True

    def _answer_all_refused(self) -> None:
        waiting, self._requests = self._requests, []
        for request in waiting:
            refusal = self._refusal()
            assert refusal is not None
            self._out.append(p.GiveAnswer(request.request, p.NotPublished(refusal)))

    def _is_due(self) -> bool:
        if not self._backoff.is_ready("publish", self._now):
            return False
        if self._owes():
            return True
        if self._must_look:
            return True
        if self._config.mode is PublishMode.MANUAL and not self._facts.is_adopted:
            return False
        if self._is_first_held:
            return False
        due = self._due_ms()
        return due is not None and due <= self._now

    @property
    def _is_first_held(self) -> bool:
        """An empty store may be amnesia: no first generation by itself before a partner answered."""
        return self._facts.head is None and not self._facts.was_confirmed and bool(self._config.partners)

    def _go_on(self, run: Run) -> None:
        """Begin the next step of the run."""
        if self._restore_on(run):
            return
        config, summary = self._config, run.summary
        if summary is None and not run.is_hook:
            self._begin_scan(run)
            return
        if config.has_validate and not run.is_hook and not run.is_validated:
            self._out.append(
                w.RunHook(self._begin(PublishPhase.VALIDATE), w.HookKind.VALIDATE, None, run.base)
            )
        elif config.has_reload and not run.is_reloaded:
            self._out.append(w.RunHook(self._begin(PublishPhase.RELOAD), w.HookKind.RELOAD, None, run.base))
        elif summary is not None:
            self._commit(run, summary)

    def _commit(self, run: Run, summary: ScanSummary) -> None:
        number = self._facts.highest + 1
        self._set(highest=number)
        self._count_losses(run, summary)
        run.committing = self._facts
        self._out.append(
            p.Commit(
                self._begin(PublishPhase.COMMIT),
                self._facts.epoch,
                number,
                run.parent,
                summary.root,
                summary.entries,
                summary.size_bytes,
                run.author,
                run.message,
                run.committing,
                run.restore.target if run.restore is not None and not run.restore.paths else None,
            )
        )

    # --- small parts ----------------------------------------------------------------------------------------

    def _due_ms(self) -> int | None:
        config = self._config
        return self._unpublished.due_ms(config.settle_ms, config.settle_max_ms, config.trigger_max_ms)

    def _show_due(self) -> None:
        """Keep the settle timer at the moment when the next scan is due."""
        is_by_hand = self._config.mode is PublishMode.MANUAL and not self._facts.is_adopted
        due = None if is_by_hand or self._job is not None else self._due_ms()
        if due is not None and due <= self._now:
            # Something else holds it back (a back-off, a pause, an unanswered question), and wakes us.
            due = None
        if due != self._due_shown:
            self._due_shown = due
            self._out.append(w.SetTimer("settle", due))

    def _announce(self) -> None:
        head = self._facts.head
        if head is not None and head == self._facts.base and head != self._announced:
            self._announced = head
            self._out.append(p.Announce(head))

    def _tell(self) -> None:
        seen = PublishSeen(
            is_working=self._job is not None and self._job.phase not in LOOKING,
            trouble=self._not_the_writer() or self._recover_trouble or self._trouble,
            is_first_held=self._is_first_held,
            has_past=self._config.has_past,
            is_fetching=not self._facts.has_pages,
            is_unpublished=self._config.mode is p.PublishMode.MANUAL
            and (self._unpublished.is_touched or self._is_different),
            restored=self._held_trouble() or self._holding.trouble,
            was_away=self._was_away,
            is_surveyed=self._is_compared
            and (self._is_surveyed or self._config.mode is p.PublishMode.MANUAL),
            blind=self._blind,
            undeclared=self._hook_loop.undeclared,
            beside=self._holding.beside,
            read_only=self._config.read_only,
        )
        report = publish_stand_of(self.line, self._facts, seen)
        if report != self._reported:
            self._reported = report
            self._out.append(report)


def _hook_trouble(kind: w.HookKind, trouble: w.Trouble) -> w.Trouble:
    reason = f"the {kind.value} hook failed: {trouble.reason}"
    return replace(trouble, code=f"{kind.value}_failed", reason=reason, retry=Retry.LATER)
