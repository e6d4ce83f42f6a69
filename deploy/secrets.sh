#!/bin/sh
# Makes deploy/.env from deploy/.env.example, readable by its owner alone, and deploy/secrets: the token that the decision point shows
# to authsvc's directory, and the certificate by which it knows that. What is there already stays as it is; to have another certificate
# and token, remove deploy/secrets first.
set -eu
cd "$(dirname "$0")"
if [ -e .env ] && [ -e secrets ]; then
	echo "deploy/.env and deploy/secrets are there already" >&2
	exit 1
fi
if ! command -v openssl >/dev/null; then
	echo "openssl is needed for the certificate" >&2
	exit 1
fi
umask 077
made=$(mktemp -d ./secrets.XXXXXX)
trap 'rm -rf "$made" .env.new' EXIT
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
if [ ! -e secrets ]; then
	token=$(random)
	echo "$token" >"$made/directory-token"
	echo "pdp $token" >"$made/directory-tokens"
	printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' 'extendedKeyUsage=serverAuth' \
		'subjectAltName=DNS:authsvc-admin,DNS:localhost' >"$made/extensions"
	curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
	# The authority signs this one certificate; its key is thrown away. Two years, then both are made anew.
	openssl req -x509 $curve -keyout "$made/authority" -out "$made/directory-ca" -days 730 -subj "/CN=Gatehouse directory authority" \
		-addext 'keyUsage=critical,keyCertSign' 2>"$made/said" || { cat "$made/said" >&2; exit 1; }
	openssl req -new $curve -keyout "$made/directory-key" -out "$made/request" -subj "/CN=authsvc-admin" 2>"$made/said" &&
		openssl x509 -req -in "$made/request" -CA "$made/directory-ca" -CAkey "$made/authority" -set_serial 1 -days 730 \
			-extfile "$made/extensions" -out "$made/directory-cert" 2>"$made/said" || { cat "$made/said" >&2; exit 1; }
	rm "$made/authority" "$made/extensions" "$made/request" "$made/said"
	# Programs run in their containers as a user that this machine does not know. The folder lets nobody in but its owner.
	chmod 444 "$made"/directory-*
	mv "$made" secrets
fi
if [ ! -e .env ]; then
	while IFS= read -r line; do
		case $line in
		[A-Z]*=) echo "$line$(random)" ;;
		*) echo "$line" ;;
		esac
	done <.env.example >.env.new
	ln .env.new .env # fails if somebody else was faster
fi
