#!/bin/sh
# Make the passwords of Valkey's users and of Flower, and Valkey's file of users:
#
#   sh compose/secrets.sh
#
# They are in compose/.env, from where `docker compose` takes them, and in compose/secrets/. Once
# made they stay: run it again after an upgrade, and restart Valkey when users.acl has changed. For
# a new password delete its line in .env before.
set -eu
umask 077
cd "$(dirname "$0")"

touch .env
chmod 600 .env
# The last line may lack its end.
[ -z "$(tail -c 1 .env)" ] || echo >> .env
for name in VALKEY_ADMIN VALKEY_API VALKEY_WORKER VALKEY_BEAT VALKEY_FLOWER FLOWER; do
  grep -q "^${name}_PASSWORD=." .env ||
    printf '%s_PASSWORD=%s\n' "$name" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >> .env
done

sha256() {
  if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi | cut -c 1-64
}

mkdir -p secrets
rules=$(grep -v '^#' users.acl | awk '/^user/ { printf "%s%s", begun, $0; begun = "\n"; next } { printf "%s", $0 } END { print "" }')
for user in ADMIN API WORKER BEAT FLOWER; do
  password=$(sed -n "s/^VALKEY_${user}_PASSWORD=//p" .env | tail -n 1)
  rules=$(printf '%s' "$rules" | sed "s/#$user /#$(printf %s "$password" | sha256) /")
done
printf '%s\n' "$rules" > secrets/users.acl.new
# Valkey's own user reads it. It holds hashes of long random passwords.
chmod 644 secrets/users.acl.new
mv secrets/users.acl.new secrets/users.acl
echo "compose/.env has the passwords, compose/secrets/users.acl the users."
