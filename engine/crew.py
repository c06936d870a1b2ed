"""Racers and judges for a race: as processes, or inside this one for a debugger."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from timetrial.engine import algoperf
from timetrial.engine.facts import KernelUses, WorkloadFacts
from timetrial.engine.link import Gone, Link, LocalLink, ProcessLink, RankedLink
from timetrial.engine.messages import Failed, JudgeReady, PrepareJudge
from timetrial.engine.trial import TrialPlan

_PREFIX = "timetrial-"
_MEMORY = Path("/dev/shm")


class ProcessCrew:
    """Each racer is a new process; the judge is one process as long as the workload stays the same."""

    def __init__(self) -> None:
        where = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
        _remove_abandoned(where)
        self.scratch = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where))
        self._judge: Link | None = None
        self._judge_of: tuple[str, str, bool] | None = None
        self._is_ready = False

    def __enter__(self) -> "ProcessCrew":
        return self

    def __exit__(self, *exception: object) -> None:
        self.dismiss_judge()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def racer(self, plan: TrialPlan) -> Link:
        log = plan.directory.path / "racer.log"
        if plan.ranks == 1:
            return ProcessLink("racer", log)
        return RankedLink([ProcessLink("racer", log) for _ in range(plan.ranks)])

    def summon_judge(self, plan: TrialPlan) -> None:
        wanted = (plan.facts.name, plan.framework, plan.compile)
        if self._judge is not None and self._judge_of == wanted:
            return
        self.dismiss_judge()
        self._judge = ProcessLink("judge", plan.directory.path.parent / "judge.log")
        self._judge_of = wanted
        self._judge.send(_preparation(plan))

    def judge(self, plan: TrialPlan, patience_sec: float) -> Link:
        self.summon_judge(plan)
        assert self._judge is not None
        if not self._is_ready:
            _await_ready(self._judge, patience_sec)
            self._is_ready = True
        return self._judge

    def dismiss_judge(self) -> None:
        if self._judge is not None:
            self._judge.kill()
        self._judge, self._judge_of, self._is_ready = None, None, False


class LocalCrew:
    """All roles in this process. `workloads` are what the roles may be asked for, `kernels` what racers report."""

    def __init__(self, workloads: Mapping[str, WorkloadFacts], kernels: KernelUses) -> None:
        self._workloads = workloads
        self._kernels = kernels
        self.scratch = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._judge: Link | None = None
        self._judge_of: tuple[str, str] | None = None

    def __enter__(self) -> "LocalCrew":
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        algoperf.forget()

    def racer(self, plan: TrialPlan) -> Link:
        del plan
        from timetrial.engine.racer import Racer

        return LocalLink(Racer(self._workloads, self._kernels).handle)

    def summon_judge(self, plan: TrialPlan) -> None:
        """The judge is made when it is asked for."""

    def judge(self, plan: TrialPlan, patience_sec: float) -> Link:
        wanted = (plan.facts.name, plan.framework)
        if self._judge is None or self._judge_of != wanted:
            from timetrial.engine.judge import Judge

            self._judge, self._judge_of = LocalLink(Judge(self._workloads).handle), wanted
            self._judge.send(_preparation(plan))
            _await_ready(self._judge, patience_sec)
        return self._judge

    def dismiss_judge(self) -> None:
        self._judge = None


def _preparation(plan: TrialPlan) -> PrepareJudge:
    return PrepareJudge(
        workload=plan.facts.name,
        framework=plan.framework,
        data=str(plan.data),
        compile_cache=str(plan.caches / "judge"),
        compile=plan.compile,
    )


def _await_ready(judge: Link, patience_sec: float) -> None:
    answer = judge.receive(patience_sec)
    if answer is None:
        raise Gone(f"it was not ready within {patience_sec:g} s")
    if isinstance(answer, Failed):
        raise Gone(answer.why)
    if not isinstance(answer, JudgeReady):
        raise Gone(f"it answered {type(answer).__name__} when it was told to prepare")


def _remove_abandoned(where: Path) -> None:
    """Folders of referees that were killed."""
    for folder in where.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
