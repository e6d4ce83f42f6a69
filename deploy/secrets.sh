#!/bin/sh
# Makes deploy/.env from deploy/.env.example, readable by its owner alone. An .env that is there already stays as it is.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
	echo "deploy/.env is there already" >&2
	exit 1
fi
umask 077
trap 'rm -f .env.new' EXIT
while IFS= read -r line; do
	case $line in
	[A-Z]*=) echo "$line$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" ;;
	*) echo "$line" ;;
	esac
done <.env.example >.env.new
ln .env.new .env # fails if somebody else was faster
