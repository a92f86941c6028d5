# shellcheck shell=bash
# Sourced by tests/run and tests/bench/run: Debian packages for what a script is about to use.
#
# need_packages WHAT=PACKAGE...   WHAT is a command, or a file by its full path; present ones cost nothing.
#
# A package here brings a binary, never a service: while apt runs, policy-rc.d refuses every start, and what it
# brought is looked for among the processes afterwards.

need_packages() {
  local pair what missing=() as_root=()
  for pair in "$@"; do
    what=${pair%%=*}
    case $what in
      /*) [ -e "$what" ] || missing+=("${pair#*=}") ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null || missing+=("${pair#*=}") ;;
    esac
  done
  [ "${#missing[@]}" -gt 0 ] || return 0

  command -v apt-get >/dev/null || packages_missing "there is no apt-get here" "${missing[@]}"
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || packages_missing "installing them takes root" "${missing[@]}"
    as_root=(sudo -n)
  fi
  echo "installing: ${missing[*]}"
  local log status=0
  log=$(mktemp)
  "${as_root[@]}" bash -s -- "${missing[@]}" >"$log" 2>&1 <<'ROOT' || status=$?
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update </dev/null
apt-get install -y --no-install-recommends "$@" </dev/null
ROOT
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    packages_missing "apt-get failed, see above" "${missing[@]}"
  fi
  rm -f "$log"
  for pair in "$@"; do
    what=${pair%%=*}
    # What a maintainer script starts is named like the program or like the package, and is a child of init.
    if [[ " ${missing[*]} " == *" ${pair#*=} "* ]] && { service_runs "${what##*/}" || service_runs "${pair#*=}"; }; then
      echo "installing ${pair#*=} started a service: stop and disable it, then run this again" >&2
      return 1
    fi
  done
}

packages_missing() {
  local why=$1
  shift
  echo "cannot go on: these Debian packages are needed and could not be had ($why): $*" >&2
  exit 1
}

# service_runs NAME: does a child of init run that program?
service_runs() {
  local comm parent
  for comm in /proc/[0-9]*/comm; do
    [ "$(cat "$comm" 2>/dev/null)" = "$1" ] || continue
    parent=$(awk '/^PPid:/ { print $2 }' "${comm%comm}status" 2>/dev/null) || continue
    [ "$parent" != 1 ] || return 0
  done
  return 1
}
