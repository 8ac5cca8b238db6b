#!/bin/sh
# Creates the secrets of compose.yaml in secrets/ unless they exist: passwords, tokens, signing secrets.
set -eu
cd "$(dirname "$0")"
umask 077
if [ -d secrets ]; then
    echo 'secrets/ already exists' >&2
    exit 0
fi
mkdir secrets
random() { openssl rand -hex 32; }
hash() { printf '%s' "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1; }

owner=$(random) gate=$(random) redis=$(random)
printf '%s' "$owner" >secrets/postgres-password
printf '%s' "$gate" >secrets/gate-password
# Redis and Postgres run as their own users, which must be able to read these files when mounted.
sed "s/>PASSWORD/#$(hash "$redis")/" ../redis/users.acl >secrets/users.acl
chmod 644 secrets/users.acl secrets/postgres-password secrets/gate-password
printf 'DATABASE_URL=postgres://postgres:%s@postgres/quota\n' "$owner" >secrets/owner.env
{
    printf 'DATABASE_URL=postgres://quota_gate:%s@postgres/quota\n' "$gate"
    printf 'REDIS_URL=redis://quota_gate:%s@redis:6379\n' "$redis"
    printf 'QUOTA_GATE__AUTH__RESERVATION_SECRET=%s\n' "$(random)"
    printf 'QUOTA_GATE__AUTH__JWT_SECRET=%s\n' "$(random)"
    printf 'QUOTA_GATE__AUTH__JWT_ISSUER=quota-gate-compose\n'
    for token in service:'[consume, read]' admin:'[admin]' cron:'[reset]'; do
        name=${token%%:*} value=$(random)
        printf '%s' "$value" >"secrets/$name-token"
        id=$(printf '%s' "$name" | tr '[:lower:]' '[:upper:]')
        printf 'QUOTA_GATE__AUTH__TOKENS__%s__SHA256=["%s"]\n' "$id" "$(hash "$value")"
        printf 'QUOTA_GATE__AUTH__TOKENS__%s__SCOPES=%s\n' "$id" "${token#*:}"
    done
} >secrets/gate.env
echo 'created secrets/; the tokens are in secrets/*-token'
