"""How long the reference baseline takes on this machine: what turns a pocket workload's steps into seconds.

A pocket budget is stated in steps of the baseline, so that it holds on a slow laptop as on a fast one. A racer
runs a few segments of the baseline without evaluation; the median segment counts, which a short disturbance does
not move. Then a judge evaluates what was trained, twice, so that a race can say how long it will take
(`forecast.py`). The answer is kept per machine, framework and versions.
"""

import statistics
from pathlib import Path

import msgspec

from timetrial.engine.clock import now_ns, seconds
from timetrial.engine.errors import Error
from timetrial.engine.link import Gone, Link
from timetrial.engine.lock import locked
from timetrial.engine.messages import (
    Failed,
    Go,
    JudgeSnapshot,
    Message,
    RacerReady,
    Stopped,
    TakeSnapshot,
    Verdict,
    Written,
)
from timetrial.engine.progress import Progress
from timetrial.engine.records import write_json_atomic
from timetrial.engine.referee import Crew, Patience
from timetrial.engine.trial import TrialPlan, preparation

_SEGMENTS = 5
_STEPS_PER_SEGMENT = 8
_HOUR_NS = 3_600 * 1_000_000_000


class CalibrationError(Error):
    """The reference baseline does not run on this machine."""


class Pace(msgspec.Struct, frozen=True):
    """What was measured, in seconds."""

    first_step_sec: float  # the first step, compilation included, beyond an ordinary one
    step_sec: float
    setup_sec: float  # of a racer
    evaluation_sec: float  # snapshot included, compilation not

    def budget_sec(self, steps: int) -> float:
        """Time for that many steps of the baseline."""
        return self.first_step_sec + steps * self.step_sec


def measure(plan: TrialPlan, crew: Crew, patience: Patience) -> Pace:
    """Run the baseline that `plan` names. CalibrationError if it fails."""
    progress_path = crew.scratch / "progress"
    Progress(progress_path, create=True).close()
    plan.directory.path.mkdir(parents=True, exist_ok=True)
    start = now_ns()
    racer = crew.racer(plan)
    try:
        message = preparation(
            plan,
            progress=progress_path,
            compile_cache=crew.scratch / "calibration",
            forbidden=[],
            checkpoint=None,
        )
        ready = _answer(racer, message, patience.setup_sec)
        assert isinstance(ready, RacerReady)
        setup_sec = seconds(now_ns() - start)
        first_sec = _segment_sec(racer, 1, patience)
        ends = [1 + _STEPS_PER_SEGMENT * (k + 1) for k in range(_SEGMENTS)]
        step_sec = statistics.median(_segment_sec(racer, end, patience) for end in ends) / _STEPS_PER_SEGMENT
        judge = crew.judge(plan, patience.setup_sec)
        snapshot = crew.scratch / "calibration.safetensors"
        _evaluation_sec(racer, judge, snapshot, patience)  # compiles
        evaluation_sec = _evaluation_sec(racer, judge, snapshot, patience)
    except Gone as gone:
        raise CalibrationError(f"{plan.facts.name}: the reference baseline died: {gone}") from gone
    finally:
        racer.kill()
        crew.dismiss_judge()
    return Pace(
        first_step_sec=max(first_sec - step_sec, 0.0),
        step_sec=step_sec,
        setup_sec=setup_sec,
        evaluation_sec=evaluation_sec,
    )


class PaceCache:
    """Calibrations kept in one file, by whatever decides them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> Pace | None:
        """The pace kept under `key`; a file that cannot be read is as good as none, since it can be made again."""
        return self._read().get(key)

    def put(self, key: str, pace: Pace) -> None:
        """Keep a pace; what another race keeps at the same time is kept too."""
        with locked(self._path.with_suffix(".lock")):
            write_json_atomic(self._path, self._read() | {key: pace})

    def _read(self) -> dict[str, Pace]:
        if not self._path.exists():
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Pace])
        except msgspec.MsgspecError:
            return {}


def _segment_sec(racer: Link, last_step: int, patience: Patience) -> float:
    start = now_ns()
    go = Go(run_ns=_HOUR_NS, last_step=last_step, new_results=[], train_state={})
    stopped = _answer(racer, go, patience.first_step_sec)
    assert isinstance(stopped, Stopped)
    return seconds(now_ns() - start)


def _evaluation_sec(racer: Link, judge: Link, snapshot: Path, patience: Patience) -> float:
    start = now_ns()
    written = _answer(racer, TakeSnapshot(path=str(snapshot)), patience.write_sec)
    verdict = _answer(judge, JudgeSnapshot(path=str(snapshot)), patience.judge_sec)
    snapshot.unlink()
    assert isinstance(written, Written) and isinstance(verdict, Verdict)
    return seconds(now_ns() - start)


def _answer(link: Link, message: Message, patience_sec: float) -> Message:
    link.send(message)
    answer = link.receive(patience_sec)
    if answer is None:
        raise CalibrationError(f"the reference baseline did not answer within {patience_sec:g} s")
    if isinstance(answer, Failed):
        raise CalibrationError(f"the reference baseline failed: {answer.why}")
    return answer
