#!/bin/sh
# The peers and their forms of a Qwen3 directory, for compare.py.   prepare.sh WORK_DIR HF_DIR [PYTHON]
# PYTHON has torch, transformers, safetensors and numpy; gguf, onnx and onnxruntime-genai are added in WORK_DIR/venv.
# Needs Node 20, npm and PyPI once; about 15 minutes and 6 GB for a model of 0.6B. What is there already is kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
model=$(cd "$2" && pwd)
python=${3:-python3}

[ -d "$work/node_modules/node-llama-cpp" ] || (cd "$work" && npm init -y >/dev/null &&
  NODE_LLAMA_CPP_SKIP_DOWNLOAD=true npm install --no-audit --no-fund node-llama-cpp@3.22.1)
if [ ! -x "$work/venv/bin/python" ]; then
  "$python" -m venv "$work/venv"
  "$python" -c 'import site; print("\n".join(site.getsitepackages()))' > "$("$work/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/outer.pth"
  "$work/venv/bin/pip" install -q gguf onnx onnx_ir onnxruntime-genai
fi
python=$work/venv/bin/python
for kind in bf16 q8_0 q4_0; do
  [ -f "$work/$kind.gguf" ] || { "$python" "$here/make_gguf.py" "$model" "$work/$kind.part" "$kind" && mv "$work/$kind.part" "$work/$kind.gguf"; }
done
[ -f "$work/lora-9.gguf" ] || "$python" "$here/random_lora.py" "$model" "$work/lora" 10
[ -f "$work/ort-int4/model.onnx" ] || "$python" -m onnxruntime_genai.models.builder -i "$model" -o "$work/ort-int4" -p int4 -e cpu
