"""What all models share: data, training loop, evaluation, runs, comparison."""

import os
import sys

if sys.platform == "win32":  # no fcntl, no folders as descriptors, no POSIX signals
    print("error: the zoo runs on Linux and macOS; on Windows, run it in WSL", file=sys.stderr)
    sys.exit(2)

if os.environ.get("TORCH_LOGS") == "":  # which would end the import of torch
    del os.environ["TORCH_LOGS"]

# `python -m` puts the working folder in front of the import path. It may be a stranger's run, whose
# `yaml.py` would be imported. A package there that the user trusts is found all the same
# (harness.config.build). sys.argv[0] is "-m" while Python looks for the command.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    _home = os.path.dirname(os.path.dirname(__file__))
    try:
        if sys.path[0] == os.getcwd() != _home:
            del sys.path[0]
    except OSError:  # the working folder was removed: nothing can be imported from it
        pass
