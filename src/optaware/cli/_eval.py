from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from optaware.cli._options import AsJson, DataDir, ProtocolName, StoreDir, data_dir, print_json, store_at

__all__ = ["evaluate"]


def evaluate(
    model: str,
    /,
    *,
    task: Annotated[str, Parameter(help="Built-in task or task file.")],
    protocol: ProtocolName = None,
    split: Annotated[Literal["test", "dev", "train"], Parameter(help="Rows to score.")] = "test",
    style: Annotated[str, Parameter(help="Prompt style of the task.")] = "default",
    out: Annotated[Path | None, Parameter(help="Write the predictions here (JSONL).")] = None,
    dtype: Annotated[str, Parameter(help="bf16, fp16 or fp32.")] = "bf16",
    max_length: Annotated[int, Parameter(help="Tokens per row; longer prompts are cut from the left.")] = 1024,
    store: StoreDir = None,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Score a model, or the kept weights of a run, on a task.

    Parameters
    ----------
    model
        Run id or folder; or a model by path, hub name or asset name.
    """
    from optaware.cli._rows import rows_of
    from optaware.evaluate import evaluate as score
    from optaware.models import OptionScorer, encode, load_model
    from optaware.records import ModelRef, parse_record
    from optaware.study import model_of_run
    from optaware.tasks import get_task

    chosen = get_task(task)
    rows = rows_of(chosen, split, protocol, data_dir(data))
    loaded = model_of_run(model, store_at(store)) or load_model(
        parse_record(ModelRef, {"name": model, "dtype": dtype}, "--dtype")
    )
    rendered = [chosen.render(example, style=style) for example in rows]
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    _, result = score(scorer, encode(rendered, loaded.tokenizer, max_length), chosen.loss, out)
    if json:
        print_json({"task": chosen.name, "split": split, "model": loaded.source, **result.to_json()})
    else:
        loss = "not finite" if result.loss is None else f"{result.loss:.4f}"
        print(f"{chosen.name} {split}: accuracy {100 * result.accuracy:.2f} % of {result.n} rows, loss {loss}")
    return 0
