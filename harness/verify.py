"""Make a certificate: could this score have been had by looking ahead?

    python -m harness.verify RUN_OR_FOLDER --complete              finished runs
    python -m harness.verify gpt                                   a file of conf/model
    python -m harness.verify mine.X --trust mine model.width=64    a class of your own

The certificate of a run is written into its folder (certificate.json).
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.hydra_app import compose
from harness.cli.tool import Parser, command
from harness.common.errors import UsageError
from harness.config import own_class
from harness.config.settings import Settings, read_settings, require_device


@command
def main() -> int:
    """Print the certificate; 0 if all checks hold, else 1."""
    parser = Parser(prog="python -m harness.verify", description=__doc__.split("\n")[0])
    parser.add_argument("what", metavar="RUN_OR_MODEL_OR_CLASS")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of a model, as for train")
    parser.add_argument(
        "--complete", action="store_true", help="score every token again, instead of a sample"
    )
    parser.add_data_path()
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps (cpu)")
    parser.add_argument("--trust", action="append", default=[], help="a package of your own")
    options = parser.parse_intermixed_args()
    require_device("--device", options.device)
    path = Path(options.what)
    if path.is_dir() and options.settings:
        raise UsageError(f"{options.settings[0]} has no meaning for a run, which has its settings")
    if options.data_path is not None and not path.is_dir():
        raise UsageError("--data-path has no meaning for a model without a run, which has no text")
    settings = None if path.is_dir() else _settings(options.what, options.settings, options.trust)

    from harness.referee import certificates

    chosen = {"complete": options.complete, "device": options.device}
    if settings is not None:
        return certificates.of_model(settings, **chosen)
    return certificates.of_runs(path, trust=options.trust, data_path=options.data_path, **chosen)


def _settings(what: str, overrides: list[str], trust: list[str]) -> Settings:
    """Of a file in conf/model, or of a class: what is no run's folder is one of these."""
    return read_settings(compose([*own_class.chosen(what, trust), *overrides])).replace(trust=trust)


if __name__ == "__main__":
    main()
