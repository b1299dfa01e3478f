"""What flows between the stages: frozen records without I/O or heavy imports."""

from optaware.records._base import Record, parse_record
from optaware.records.chat import ChatMessage, ChatModelRef, ChatReply, ChatRequest, Usage
from optaware.records.example import (
    AutomaticCheck,
    Candidate,
    DatasetCard,
    DataSource,
    Decision,
    Example,
    ParseFailure,
    Protocol,
    RenderedExample,
    Verdict,
)
from optaware.records.fingerprint import FINGERPRINT_VERSION, fingerprint, short_id
from optaware.records.methods import FOFull, FOLoRA, Knob, Method, MethodConfig, MeZO, ZeroShot, surface
from optaware.records.result import Contrast, Interval, Prediction, RunResult, Score
from optaware.records.run import DataRef, EvalRecord, ModelRef, RunSpec, RunStatus, Schedule, StepRecord
from optaware.records.study import CorpusSpec, GateSpec, MethodArm, StudySpec, VariantSpec

__all__ = [
    "FINGERPRINT_VERSION",
    "AutomaticCheck",
    "Candidate",
    "ChatMessage",
    "ChatModelRef",
    "ChatReply",
    "ChatRequest",
    "Contrast",
    "CorpusSpec",
    "DataRef",
    "DataSource",
    "DatasetCard",
    "Decision",
    "EvalRecord",
    "Example",
    "FOFull",
    "FOLoRA",
    "GateSpec",
    "Interval",
    "Knob",
    "MeZO",
    "Method",
    "MethodArm",
    "MethodConfig",
    "ModelRef",
    "ParseFailure",
    "Prediction",
    "Protocol",
    "Record",
    "RenderedExample",
    "RunResult",
    "RunSpec",
    "RunStatus",
    "Schedule",
    "Score",
    "StepRecord",
    "StudySpec",
    "Usage",
    "VariantSpec",
    "Verdict",
    "ZeroShot",
    "fingerprint",
    "parse_record",
    "short_id",
    "surface",
]
