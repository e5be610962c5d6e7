#!/bin/sh
# The part of the postgres image's entry point that a first start needs: a database in PGDATA with a password.
# In: POSTGRES_PASSWORD, PGDATA, the command. Out: the command, as the user postgres.
set -eu
mkdir -p "$PGDATA"
chown -R postgres "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" >/run/password
    chown postgres /run/password
    su postgres -c "PATH='$PATH' initdb -D '$PGDATA' --pwfile=/run/password --auth-host=scram-sha-256 --auth-local=trust --no-sync"
    rm /run/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
fi
# Not a child: the database itself has to get the stop signal.
exec su postgres -c "PATH='$PATH' exec \"\$0\" \"\$@\"" "$@"
