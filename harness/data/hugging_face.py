"""Hugging Face's library `datasets`: the splits of a dataset by its name, or of a folder."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from harness.common.errors import UsageError
from harness.common.paths import expand
from harness.common.values import did_you_mean, show
from harness.data.assets import Assets
from harness.data.corpus import passed_over_note

# Without an owner the library takes `json` for a reader of the working folder's own files.
NAME = re.compile(r"(?!buckets/)[\w.-]+/[\w.-]+")
ROWS_AT_A_TIME = 1024
OWN_CONFIGS = ".huggingface.yaml"  # beside README.md


class FoundSplits(NamedTuple):
    """The splits of a dataset by name, as `datasets.IterableDataset`. files: of each, with their
    sizes, or of the Hub with their revision. note: of their revision, or what is not read."""

    splits: Mapping[str, Any]
    files: Mapping[str, Sequence[Any]]
    note: str | None


@dataclass(frozen=True)
class DatasetSource:
    """name: OWNER/NAME of the Hub, with a subset and a revision (None: the default ones); or one
    that is typed as a path: a folder, of data files or as `save_to_disk` writes it. field: that
    holds the text."""

    name: str
    subset: str | None
    revision: str | None
    field: str

    def __post_init__(self) -> None:
        """Raises ValueError for what names no dataset."""
        if not (self.is_folder or NAME.fullmatch(self.name)):
            raise ValueError(
                f"name={show(self.name)} should be OWNER/NAME, or a folder, as ./FOLDER"
            )
        if self.is_folder and self.revision is not None:
            raise ValueError("revision: a folder has none")

    @property
    def is_folder(self) -> bool:
        return self.name.startswith((".", "/", "~"))

    @property
    def where(self) -> str:
        """Begins a message."""
        return f"data.name={self.name}"

    def find(self, assets: Assets, streamed: bool) -> FoundSplits:
        """streamed: what is not on this machine is read as it is needed, and not stored. Raises
        UsageError for what is not there; the Hub is not waited for."""
        try:
            import datasets
        except ImportError as error:
            raise UsageError(
                f"{self.where} needs the library datasets: pip install "
                "'language-model-zoo[datasets]'"
            ) from error
        datasets.logging.set_verbosity_error()
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        with self.in_words("can't be loaded"):
            return self._in_folder() if self.is_folder else self._named(assets, streamed)

    def _in_folder(self) -> FoundSplits:
        import datasets

        folder = expand(self.name)
        if not folder.is_dir():
            raise UsageError(f"{self.where} is no folder; for single files take data=lines")
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            if self.subset is not None:
                raise UsageError(f"{self.where}: what save_to_disk wrote has no data.subset")
            saved = datasets.load_from_disk(str(folder))
            return _stored(saved if isinstance(saved, dict) else {"train": saved}, None)
        _require_local(folder)
        # The files as they are: a run's folder must not have others copied to a cache.
        builder = datasets.load_dataset_builder(str(folder), self.subset)
        unread = _files_of_no_split(folder, builder)
        note = (
            passed_over_note(unread, "files of another format or of no split") if unread else None
        )
        return _streamed(builder, None)._replace(note=note)

    def _named(self, assets: Assets, streamed: bool) -> FoundSplits:
        import datasets

        reason = None
        if datasets.config.HF_HUB_OFFLINE:
            reason = "it is switched off: HF_HUB_OFFLINE, HF_DATASETS_OFFLINE"
        else:
            hub = datasets.config.HF_ENDPOINT.rstrip("/")
            reason = assets.why_unreachable(f"{hub}/api/datasets/{self.name}")
        with _offline(datasets.config, reason is not None):
            try:
                builder = datasets.load_dataset_builder(
                    f"hf://datasets/{self.name}", self.subset, revision=self.revision
                )
            except Exception as error:
                if reason is None:
                    raise
                subset = f", {self.subset!r}" if self.subset else ""
                script = f"import datasets; datasets.load_dataset({self.name!r}{subset})"
                words = " ".join(str(error).split())
                raise UsageError(
                    f"{self.where} is not in the cache of the library datasets ({words:.200}), and "
                    f"the Hub is not asked ({reason}); where there is a network: "
                    f'python -c "{script}", or give a folder: data.name=./FOLDER'
                ) from error
            is_cached = type(builder).__module__.startswith("datasets.packaged_modules.cache")
            if is_cached and self.revision not in (None, builder.hash):
                raise UsageError(
                    f"{self.where}: the cache has revision {builder.hash}, not data.revision="
                    f"{self.revision}, and the Hub can't be asked"
                )
            note = f"{self.name} is that of revision {builder.hash}"
            if assets.confirmed is not None and self.revision is None:  # before it may be refused
                print(
                    f"{note}; if the run's is another, which its train.log says, "
                    "data.revision=COMMIT asks for that",
                    file=sys.stderr,
                )
            if streamed and not is_cached:
                return _streamed(builder, note)
            builder.download_and_prepare()
            return _stored(builder.as_dataset(), note)

    def texts(self, rows: Any, name: str) -> Iterator[str]:
        """Of a split, or a shard of one, in their order. name: for messages.

        Raises UsageError for what is no text, and what the library can't read.
        """
        number, where = 0, f"{self.where}: {name}"
        with self.in_words(f"{name} can't be read"):
            if rows.features is not None:
                self._require_field(rows.features, where)
                rows = rows.select_columns([self.field])
            for batch in rows.iter(batch_size=ROWS_AT_A_TIME):
                self._require_field(batch, where)
                for text in batch[self.field]:
                    number += 1
                    if not isinstance(text, str) or re.search("[\ud800-\udfff]", text):
                        raise UsageError(
                            f"{where}, row {number}: the field {self.field} is no text: "
                            f"{text!r:.40}"
                        )
                    yield text

    def _require_field(self, known: Mapping[str, Any], where: str) -> None:
        if self.field not in known:
            raise UsageError(
                f"{where} has no field {self.field!r:.80}; data.field should be one of "
                f"{', '.join(map(repr, known)):.200}.{did_you_mean(self.field, list(known))}"
            )

    @contextmanager
    def in_words(self, what: str) -> Iterator[None]:
        """Raises UsageError for whatever the library raises, which is of many kinds."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            words = " ".join(str(error).split())
            raise UsageError(
                f"{self.where}: {what}: {type(error).__name__}: {words:.300}"
            ) from error


@contextmanager
def _offline(config: Any, asked: bool) -> Iterator[None]:
    """The library asks nobody, if that is asked for. It looks at this alone."""
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE or asked
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _require_local(folder: Path) -> None:
    """Raises UsageError if a folder's own description names data on the network: nothing is asked
    of it."""
    from datasets.load import DatasetCard  # which the library reads it by

    described: dict[str, Any] = {}
    if (folder / "README.md").is_file():
        described["README.md"] = DatasetCard.load(folder / "README.md").data.to_dict()
    if (folder / OWN_CONFIGS).is_file():
        described[OWN_CONFIGS] = yaml.safe_load((folder / OWN_CONFIGS).read_text())
    for name, own in described.items():
        configs = own.get("configs") if isinstance(own, dict) else None
        if "://" in json.dumps(configs, default=str):
            raise UsageError(
                f"data.name={folder}: its {name} names data that are not in the folder"
            )


def _files_of_no_split(folder: Path, builder: Any) -> list[Path]:
    """The library takes those of one format, and passes over others without a word."""
    from datasets.data_files import FILES_TO_IGNORE  # README.md and the like

    read = {
        Path(path).resolve()
        for paths in (builder.config.data_files or {}).values()
        for path in paths
    }
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.resolve() not in read
        and path.name not in FILES_TO_IGNORE
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _stored(splits: Mapping[str, Any], note: str | None) -> FoundSplits:
    """Of `datasets.Dataset`s: their files are their shards."""
    paths = {
        name: [Path(each["filename"]) for each in own.cache_files] for name, own in splits.items()
    }
    streams = {
        str(name): own.to_iterable_dataset(num_shards=max(1, min(len(paths[name]), len(own))))
        for name, own in splits.items()
    }
    return FoundSplits(streams, {str(name): _sizes(own) for name, own in paths.items()}, note)


def _streamed(builder: Any, note: str | None) -> FoundSplits:
    streams = {str(name): own for name, own in builder.as_streaming_dataset().items()}
    files = {str(name): [*own] for name, own in (builder.config.data_files or {}).items()}
    if note is None:
        files = {name: _sizes([Path(path) for path in own]) for name, own in files.items()}
    return FoundSplits(streams, files, note)


def _sizes(files: Sequence[Path]) -> list[tuple[str, int]]:
    return [(path.name, os.path.getsize(path)) for path in files]
