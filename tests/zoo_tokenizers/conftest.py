"""The corpus by each tokenizer, a published tokenizer's folder, and no network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import Dataset, prepare
from tests.data.datasets import SHARES
from tests.zoo_tokenizers.building import ON_THE_CORPUS, settings_of
from zoo_tokenizers import Tokenizer


@pytest.fixture(scope="session")
def datasets(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """The corpus by each tokenizer, made when it is first asked for."""
    cache = tmp_path_factory.mktemp("datasets")

    class Made(dict[str, Dataset]):
        def __missing__(self, name: str) -> Dataset:
            settings = settings_of(*ON_THE_CORPUS[name])
            self[name] = prepare(
                TextFile(str(assets / "tiny_shakespeare.txt"), SHARES),
                settings.build("tokenizer", Tokenizer),
                Assets((assets,), cache),
            )
            return self[name]

    return Made()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError(f"the network was asked for: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def bert_folder(assets: Path) -> Path:
    (folder,) = (assets / "hf/hub/models--bert-base-uncased/snapshots").iterdir()
    return folder
