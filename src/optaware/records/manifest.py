"""How a stranger's training script is told what to change, and where it writes what it measured."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from optaware.records._base import Record

__all__ = ["Manifest", "ManifestComponent", "ManifestMetric", "ManifestOption"]

ComponentType = Literal["integer", "number", "text", "bool"]
_SLOT = "{value}"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ManifestOption(Record):
    """How a value reaches the script: a flag template, an environment variable, or both.

    Attributes:
        flag: Words of the command line with `{value}` in them: `--lr {value}`, `--lr={value}`. It is split at spaces
            before the value is put in; no shell sees it.
        env: Name of an environment variable that is set to the value.
    """

    flag: str | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _reaches_the_script(self) -> Self:
        faults = self._faults(_SLOT)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self, slot: str | None) -> list[str]:
        faults = []
        if self.flag is None and self.env is None:
            faults.append("give a flag or an env, else the script never sees the value")
        if self.flag is not None:
            found = _PLACEHOLDER.findall(self.flag)
            if not self.flag.split():
                faults.append("the flag is empty")
            if slot is not None and found != [slot]:
                faults.append(f"the flag {self.flag!r} must hold {{value}} exactly once and no other placeholder")
            if slot is None and found:
                faults.append(f"the flag {self.flag!r} is given as it is, so it must hold no placeholder")
        if self.env is not None and not _ENV.fullmatch(self.env):
            faults.append(f"{self.env!r} is no name of an environment variable")
        return faults

    def arguments(self, text: str) -> tuple[str, ...]:
        """The words of the command line that hand over `text`."""
        return tuple(word.replace(_SLOT, text) for word in (self.flag or "").split())


class ManifestComponent(ManifestOption):
    """One thing that can be changed about the script.

    Attributes:
        words: What it is, as a paper would say it.
        aliases: Other names for it.
        type: `integer`, `number`, `text` or `bool`.
        baseline: Its value in the baseline; None: the script's own default, nothing is passed.
        remove: The value that stands for "removed"; None where removal has no meaning.
        choices: The values it may take, each with the other names it goes by; empty: any value of its type.
        flag: For a `bool` without `{value}`: given as it is when the value is true.
        flag_off: For such a `bool`: given when the value is false.
    """

    words: Annotated[str, Field(min_length=1)]
    aliases: tuple[str, ...] = ()
    type: ComponentType = "text"
    baseline: JsonValue = None
    remove: JsonValue = None
    choices: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    flag_off: str | None = None

    @model_validator(mode="after")
    def _reaches_the_script(self) -> Self:
        switch = self.type == "bool" and _SLOT not in (self.flag or _SLOT)
        faults = self._faults(None if switch else _SLOT)
        if self.flag_off is not None and (not switch or _PLACEHOLDER.search(self.flag_off)):
            faults.append("flag_off belongs to a bool whose flag has no {value}, and has none itself")
        for name, value in (("baseline", self.baseline), ("remove", self.remove)):
            if value is not None and (why := self.fault_of(value)):
                faults.append(f"{name}: {why}")
        if self.type == "bool" and self.choices:
            faults.append("a bool has no choices")
        for choice in self.choices:
            if self.type != "text" and self.fault_of(self.read(choice)):
                faults.append(f"choices: {choice!r} is no {self.type}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def read(self, choice: str) -> JsonValue:
        """A choice (a key of `choices`) as a value of the component's type; itself when it is none."""
        try:
            if self.type == "integer":
                return int(choice)
            return float(choice) if self.type == "number" else choice
        except ValueError:
            return choice

    def _unfit_word(self, text: str) -> str | None:
        """Values come out of a plan, which others wrote: none may turn into an option of the script."""
        if "\0" in text:
            return f"{text!r} holds a NUL, which no command line can"
        if text.startswith("-") and _SLOT in (self.flag or "").split():
            return f"{text!r} would be read as another option; write the flag as --name={{value}} to allow it"
        return None

    def fault_of(self, value: JsonValue) -> str | None:
        """Why the component cannot have this value; None when it can."""
        fits = {
            "integer": isinstance(value, int) and not isinstance(value, bool),
            "number": isinstance(value, int | float) and not isinstance(value, bool),
            "text": isinstance(value, str),
            "bool": isinstance(value, bool),
        }[self.type]
        if not fits:
            return f"{value!r} is no {self.type}"
        if isinstance(value, str) and (why := self._unfit_word(value)):
            return why
        if self.choices and value not in map(self.read, self.choices):
            return f"{value!r} is none of {', '.join(self.choices)}"
        return None

    def arguments_for(self, value: JsonValue) -> tuple[str, ...]:
        """The words of the command line for a value; none when only the environment carries it."""
        if isinstance(value, bool) and _SLOT not in (self.flag or _SLOT):
            return tuple(((self.flag if value else self.flag_off) or "").split())
        return self.arguments(self.text(value))

    def environment_for(self, value: JsonValue) -> dict[str, str]:
        """The environment variable for a value; empty when only the command line carries it."""
        return {} if self.env is None else {self.env: self.text(value)}

    def text(self, value: JsonValue) -> str:
        """A value as the script reads it: `true` and `false` for a bool, numbers in their shortest form."""
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


class ManifestMetric(Record):
    """Where the script writes a metric: a key of a JSON file, or a line `name=value` (or `name: value`) of its output.

    Attributes:
        file: JSON file within the folder that the run is given, as a relative path; with `key`.
        key: Key in it; dots go down (`test.accuracy`).
        line: Name before `=` or `:`; the last such line counts.
        aliases: Other names that plans have for it.
        better: Which way is better.
        unit: What it is counted in.
    """

    file: str | None = None
    key: str | None = None
    line: str | None = None
    aliases: tuple[str, ...] = ()
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.line is None) == (self.file is None) or (self.file is None) != (self.key is None):
            raise ValueError("give either line, or file and key")
        # An earlier attempt's file is deleted before a run, so it must be one of the run's own.
        if self.file is not None and (
            "\0" in self.file or PurePath(self.file).is_absolute() or not {".."}.isdisjoint(PurePath(self.file).parts)
        ):
            raise ValueError(f"the file {self.file!r} does not lie within the run's folder: give a relative path")
        return self


class Manifest(Record):
    """A training script that is not ours: what can be changed, and where its metrics are.

    Attributes:
        name: Short name; it stands where a method's name would.
        command: The command without the components' flags; `{flags}` marks where they go (default: at the end).
        seed: How the seed reaches the script; without it runs of different seeds are not told apart by the script.
        out: How the folder of the run reaches the script, for metrics that are written to files.
        components: What can be changed, by name.
        metrics: What is measured, by canonical name.
        timeout_s: Seconds after which a run is ended and recorded as failed.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    description: str = ""
    command: tuple[str, ...] = ()
    seed: ManifestOption | None = None
    out: ManifestOption | None = None
    components: Annotated[dict[str, ManifestComponent], Field(min_length=1)]
    metrics: Annotated[dict[str, ManifestMetric], Field(min_length=1)]
    timeout_s: Annotated[float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _no_two_the_same(self) -> Self:
        faults = []
        options = {"seed": self.seed, "out": self.out, **self.components}
        for kind in ("flag", "env"):
            seen: dict[str, str] = {}
            for name, option in options.items():
                given = getattr(option, kind, None)
                word = given.split()[0].split("=")[0] if given else None
                if word and word in seen:
                    faults.append(f"{seen[word]} and {name} have the same {kind} {word}")
                elif word:
                    seen[word] = name
        if faults:
            raise ValueError("; ".join(faults))
        return self
