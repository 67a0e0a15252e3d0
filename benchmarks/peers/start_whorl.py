"""`whorl train ppo CartPole-v1` for as many steps as the argument says, into a folder that is lost."""

import sys
import tempfile

from whorl.apps.cli import main

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as runs:
        main(["train", "ppo", "CartPole-v1", "--total-steps", sys.argv[1], "--runs", runs, "--quiet"])
