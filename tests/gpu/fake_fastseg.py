"""fastseg for the tests of tools/gpu_check: whatever GPU is asked for, the reference engine runs.

Its first word is the threshold that the GPU shall have, or "same".
"""

from __future__ import annotations

import sys

from fastseg.cli import main

if __name__ == "__main__":
    threshold, *words = sys.argv[1:]
    gpu = any(word.startswith("cuda:") for word in words)
    for option in ("--device", "--precision"):
        at = words.index(option)
        del words[at : at + 2]
    if gpu and threshold != "same":
        words += ["--thr", threshold]
    main([*words, "--device", "cpu", "--engine", "onnxruntime"])
