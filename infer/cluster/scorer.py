"""An actor: networks and decoding processes of its own, which score the patients that the driver hands it.

Each patient is one call, and several calls wait side by side, so that batches are filled across patients as in a single
run. The results come from `score_patients`, the same function.
"""

import hashlib
import json
import logging
import platform
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue

from infer import __version__
from infer.bundle.load import Bundle, load_bundle
from infer.cluster.work import Answer, Hello, Refusal, Work, answer_text, patient_of, some_of, work_of
from infer.cohort.patient import Patient
from infer.engine.fallback import Engine
from infer.engine.networks import smallest_graph
from infer.engine.sessions import choose_device
from infer.errors import UsageError, ending_of
from infer.output.audit import libraries, program_digest
from infer.scoring.cohort import score_patients
from infer.scoring.prevalence import bundle_at
from infer.scoring.result import PatientResult
from infer.scoring.workers import decoding_processes

_Item = tuple[Patient, "Future[Answer]"]


class Scorer:
    """The actor. All that is called from outside takes and returns JSON text, and raises nothing."""

    def __init__(self, work: str, processors: int) -> None:
        """Take note of the work; `hello` begins it.

        Args:
            work: from `Work.text`.
            processors: CPUs for networks and decoding.
        """
        # A warning would go to a log file of Ray's, whose readers nobody has chosen.
        logging.getLogger("lympho").addHandler(logging.NullHandler())
        logging.getLogger("lympho").propagate = False
        self._work, self._processors = work_of(work), processors
        self._inbox = _Inbox()

    def hello(self) -> str:
        """Load the bundle, pass the self-test and begin: returns a `Hello`, or a `Refusal`."""
        try:
            return answer_text(self._begin())
        except Exception as error:  # noqa: BLE001 - the driver says it; Ray would log and pickle a traceback with values
            code, why = ending_of(error)
            return answer_text(Refusal(why, code))

    def score(self, patient: str) -> str:
        """Score a patient, beside those of other calls: returns an `Answer`."""
        return answer_text(self._inbox.ask(patient_of(patient)))

    def _begin(self) -> Hello:
        work = self._work
        check_same(work)
        bundle = load_bundle(work.bundle)
        if bundle.bundle_id != work.bundle_id:
            raise UsageError(f"--bundle {work.bundle}: is another bundle there ({bundle.short_id})")
        bundle = bundle_at(bundle, work.prevalence)
        device = choose_device(work.device, smallest_graph(bundle))
        engine = Engine(bundle, device, work.batch_size, self._processors)
        numerics = self._numerics(engine)
        self._inbox.begin(engine, self._scored(engine, bundle))
        return Hello(
            platform.node(),
            numerics,
            engine.device.provider,
            engine.device.note,
            engine.precision,
            engine.processors,
            tuple(engine.downgrades),
        )

    def _numerics(self, engine: Engine) -> str:
        return engine.run_self_test()

    def _scored(self, engine: Engine, bundle: Bundle) -> Generator[PatientResult, None, None]:
        work = self._work
        return score_patients(
            work.patients,
            self._inbox.patients(),
            engine,
            bundle.manifest,
            work.operating_point,
            work.workers or decoding_processes(engine.device.provider, self._processors),
            work.settle,
            scale=work.scale,
            ood=work.ood,
        )


def check_same(work: Work) -> None:
    """Check that this node has the driver's program, libraries and table.

    Raises:
        UsageError: it has others, or none.
    """
    if sys.getfilesystemencoding() != "utf-8":
        raise UsageError("file names are not in UTF-8 there: start Ray with PYTHONUTF8=1")
    if f"{__version__} {program_digest()}" != work.code:
        raise UsageError("another version of lympho is installed there")
    if json.dumps(libraries()) != work.libraries:
        raise UsageError("other versions of the libraries are installed there")
    if _sha256(work.table) != work.table_sha256:
        raise UsageError(f"{work.table}: is not there, or is another table. All nodes need it at the same path")
    if not work.patients.is_dir() or (work.some_folders and not some_of(work.patients, work.some_folders)):
        raise UsageError(
            f"{work.patients}: is not there, or has none of the patients' folders. All nodes need it at the same path"
        )


class _Inbox:
    """Patients on their way into the pipeline, and who waits for their results."""

    def __init__(self) -> None:
        self._coming: SimpleQueue[_Item] = SimpleQueue()
        self._under_way: deque[Future[Answer]] = deque()
        self._lock = threading.Lock()
        self._broken: Answer | None = None

    def begin(self, engine: Engine, scored: Generator[PatientResult, None, None]) -> None:
        threading.Thread(target=self._work, args=(engine, scored), name="score", daemon=True).start()

    def ask(self, patient: Patient) -> Answer:
        answer: Future[Answer] = Future()
        with self._lock:
            if self._broken:
                return self._broken
            self._coming.put((patient, answer))
        return answer.result()

    def patients(self) -> Iterator[Patient | None]:
        """The patients in the order in which they came, and None before each wait."""
        while True:
            try:
                patient, answer = self._coming.get_nowait()
            except Empty:
                yield None
                patient, answer = self._coming.get()
            self._under_way.append(answer)
            yield patient

    def _work(self, engine: Engine, scored: Generator[PatientResult, None, None]) -> None:
        told = len(engine.downgrades)
        try:
            for result in scored:
                new, told = engine.downgrades[told:], len(engine.downgrades)
                self._under_way.popleft().set_result(Answer(result, tuple(new)))
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            self._break(Answer(broken=ending_of(error)[1] or type(error).__name__))

    def _break(self, broken: Answer) -> None:
        with self._lock:
            self._broken = broken
        for answer in self._under_way:
            answer.set_result(broken)
        while not self._coming.empty():
            self._coming.get()[1].set_result(broken)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
