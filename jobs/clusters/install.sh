#!/bin/bash
# Installs mind with the versions of constraints.txt, on a node or in an image; run again, it changes nothing.
# Usage: install.sh VENV [PACKAGE…]   PACKAGE: more of constraints.txt, e.g. boto3 for Ray's AWS autoscaler.
# PYTHON, TORCH_INDEX: as in the Makefile. Without a GPU, PyTorch's CPU builds: PyPI's bring several GB of CUDA.
set -euo pipefail
venv=$1
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

[[ -x $venv/bin/python ]] || "${PYTHON:-python3.11}" -m venv "$venv"
index=${TORCH_INDEX-$(command -v nvidia-smi >/dev/null || echo https://download.pytorch.org/whl/cpu)}
# torch goes first and alone, so that no other requirement can pull a different build of it
"$venv/bin/python" -m pip install --quiet ${index:+--extra-index-url "$index"} "$(grep '^torch==' constraints.txt)"
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt . "$@"
