"""Client of the text-embedding server Quiver.

    with quiver_client.Client("localhost:50051") as client:
        vectors = client.embed(["a cat", "a kitten"])  # float32 [2, d]
"""
from ._pb.embed_pb2 import ModelInfo
from .aio import AsyncClient
from .client import Client
from .errors import CallError, EmbedError, Failure, QuiverError, VectorSpaceError
from .options import EmbedOptions, PromptOptions
from .requests import Content, Input
from .results import Result, VectorSpace
from .retry import Retry

__all__ = ["AsyncClient", "CallError", "Client", "Content", "EmbedError", "EmbedOptions", "Failure", "Input",
           "ModelInfo", "PromptOptions", "QuiverError", "Result", "Retry", "VectorSpace", "VectorSpaceError"]
