"""The options of a call: keyword arguments here, one message on the wire."""
from __future__ import annotations

from typing import Literal, TypedDict

from ._pb import embed_pb2 as pb

_TRUNCATION = {"none": pb.TRUNCATION_NONE, False: pb.TRUNCATION_NONE, "right": pb.TRUNCATION_RIGHT,
               True: pb.TRUNCATION_RIGHT, "left": pb.TRUNCATION_LEFT}
_OUTPUT_TYPE = {"float32": pb.OUTPUT_TYPE_FLOAT32, "float16": pb.OUTPUT_TYPE_FLOAT16,
                "bfloat16": pb.OUTPUT_TYPE_BFLOAT16, "int8": pb.OUTPUT_TYPE_INT8, "binary": pb.OUTPUT_TYPE_BINARY}
_LANE = {"interactive": pb.LANE_INTERACTIVE, "bulk": pb.LANE_BULK}


class PromptOptions(TypedDict, total=False):
    """What becomes of a text before it is run. Where an option is absent, the server's default holds."""

    prompt_name: str
    """One of ModelInfo.prompts, put before each text. "" asks for none."""
    instruction: str
    """The task in words, for models with an instruction template. Not together with prompt_name."""
    truncate: bool | Literal["none", "left", "right"]
    """What to cut from an input that is too long: its right side (or True), its left side, or nothing, so that it
    fails (or False)."""


class EmbedOptions(PromptOptions, total=False):
    """All options of a call that embeds."""

    dimensions: int
    """Length of the vectors, within ModelInfo.dimensions."""
    normalize: bool
    """Scale vectors to length 1, which is also the default."""
    output_type: Literal["float32", "float16", "bfloat16", "int8", "binary"]
    """Type on the wire; Result.vector says what it becomes."""
    lane: Literal["interactive", "bulk"]
    """"interactive" for embed, "bulk" for streams where absent."""


def write_options(options: EmbedOptions) -> pb.EmbedOptions:
    """Raises TypeError for an unknown option, ValueError for a value that no server takes."""
    unknown = options.keys() - EmbedOptions.__annotations__.keys() - PromptOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}")
    out = pb.EmbedOptions()
    if options.get("prompt_name") is not None and options.get("instruction") is not None:
        raise ValueError("prompt_name and instruction must not be given together")
    for name in ("prompt_name", "instruction", "dimensions", "normalize"):
        if options.get(name) is not None:
            try:
                setattr(out, name, options[name])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} must not be {options[name]!r}: {error}") from None
    for name, field, values in (("truncate", "truncation", _TRUNCATION), ("output_type", "output_type", _OUTPUT_TYPE),
                                ("lane", "lane", _LANE)):
        value = options.get(name)
        if value is None:
            continue
        if value not in values:
            allowed = ", ".join(repr(allowed) for allowed in values)
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
        setattr(out, field, values[value])
    return out
