# Sourced by the scripts beside it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

need() { # command, what it is for
  command -v "$1" >/dev/null 2>&1 || die "$1 is needed $2, and is not installed"
}

# Debian packages by name, installed when one of them is missing.
debian_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  step "Installing ${missing[*]}"
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The packages of a folder's lock file, installed when that has changed since.
npm_packages() {
  local folder=$1 stamp="$1/node_modules/.installed"
  if ! cmp -s "$folder/package-lock.json" "$stamp"; then
    step "Installing the npm packages of $folder"
    (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error)
    cp "$folder/package-lock.json" "$stamp"
  fi
}

# The packages of a folder's requirements.txt in its .venv, installed when that has changed since.
python_packages() {
  local folder=$1
  if ! cmp -s "$folder/requirements.txt" "$folder/.venv/.installed"; then
    step "Installing the Python packages of $folder"
    python3 -m venv "$folder/.venv"
    "$folder/.venv/bin/pip" install --quiet --disable-pip-version-check -r "$folder/requirements.txt"
    cp "$folder/requirements.txt" "$folder/.venv/.installed"
  fi
}

build_client() {
  need node "to build the browser client (version 20 or later)"
  npm_packages client-js
  step "Building the browser client"
  (cd client-js && npm run --silent build)
}
