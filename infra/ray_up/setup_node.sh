#!/usr/bin/env bash
# Installs geoseg on a node that `ray up` has started, from the copy of the repository in ~/geoseg. Debian or Ubuntu.
# Every node takes the Python of its system: nodes of one cluster must be of one image, so that these are the same.
set -euo pipefail
cd ~/geoseg

sudo apt-get update -qq
sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv libexpat1 nfs-common

index=(--index-url https://download.pytorch.org/whl/cpu)
if nvidia-smi -L >/dev/null 2>&1; then
    index=() # the wheels of the usual index bring CUDA
fi
[ -x .venv/bin/ray ] || python3 -m venv .venv
.venv/bin/pip install --quiet -c constraints.txt pip setuptools
grep -E '^torch(vision)?==' constraints.txt >.venv/torch.txt
.venv/bin/pip install --quiet --no-deps "${index[@]}" -r .venv/torch.txt
.venv/bin/pip install --quiet --no-build-isolation -c constraints.txt . 'ray[default]'

chmod 700 ~/.ray
chmod 600 ~/.ray/auth_token
# For shells that `ray exec` and `ray attach` open.
for line in \
    'export RAY_AUTH_MODE=token' \
    'export RAY_USAGE_STATS_ENABLED=0' \
    'export PATH="$HOME/geoseg/.venv/bin:$PATH"'; do
    grep -qxF "$line" ~/.bashrc || echo "$line" >>~/.bashrc
done
