# shellcheck shell=bash
# Private database servers for tests and measurements: on free ports of loopback, in a temporary
# directory, run by a user who owns nothing else, gone with the script that started them.

need_databases() {
    [[ -n $(postgres_programs) ]] || missing+=(postgresql)
    need mariadbd mariadb-server
}

# Where Debian keeps the programs of the newest PostgreSQL it has.
postgres_programs() {
    local found=(/usr/lib/postgresql/*/bin/initdb)
    [[ -x ${found[-1]} ]] && dirname "${found[-1]}"
}

# Stops what was started. Call it from a trap on EXIT.
databases=
stop_databases() {
    [[ -n $databases ]] || return 0
    if [[ -f $databases/postgres/postmaster.pid ]]; then
        kill -QUIT "$(head -n 1 "$databases/postgres/postmaster.pid")" 2>/dev/null || true
    fi
    if [[ -f $databases/mariadb/pid ]]; then
        kill -TERM "$(cat "$databases/mariadb/pid")" 2>/dev/null || true
    fi
    rm -rf "$databases"
    databases=
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups "$@"; }

# Starts them; exports NETMAN_TEST_POSTGRES and NETMAN_TEST_MYSQL, the URLs of administrators. With
# `careless`, they do not wait for the disk: what they hold outlives their own end, but not the machine's.
start_databases() {
    local care=${1:-careful}
    databases=$(mktemp -d /tmp/netman-databases.XXXXXX)
    chmod 0711 "$databases"
    start_postgres "$care"
    start_mariadb "$care"
}

# More options for PostgreSQL, and whether it is started again a second after it was told to stop.
postgres_options=()
postgres_returns=

start_postgres() {
    local programs home port care=()
    [[ $1 == careless ]] && care=(-c fsync=off -c full_page_writes=off)
    programs=$(postgres_programs)
    home=$databases/postgres
    port=$(free_port)
    install -d -o nobody -g nogroup -m 0700 "$home"
    printf 'netman' >"$databases/postgres-password"
    chmod 0644 "$databases/postgres-password"
    as_nobody "$programs/initdb" --no-sync -D "$home" -U netman --pwfile "$databases/postgres-password" \
        --auth scram-sha-256 -E UTF8 --locale C.UTF-8 --no-instructions >"$databases/postgres.log" 2>&1 ||
        fail "PostgreSQL could not be set up: $(tail -n 3 "$databases/postgres.log")"
    # The socket's directory is the private one; everybody comes by TCP.
    local line=(setpriv --pdeathsig QUIT -- "$programs/postgres" -D "$home" -p "$port" -k "$home"
        -c listen_addresses=127.0.0.1 -c max_connections=400 -c shared_buffers=256MB
        "${care[@]}" "${postgres_options[@]}")
    # Told to stop, it ends well; told to quit, as at the end, it does not.
    # shellcheck disable=SC2016 # the inner shell expands it
    [[ -z $postgres_returns ]] ||
        line=(setpriv --pdeathsig KILL -- sh -c 'while "$@"; do sleep 1; done' sh "${line[@]}")
    as_nobody "${line[@]}" >>"$databases/postgres.log" 2>&1 </dev/null &
    export NETMAN_TEST_POSTGRES=postgres://netman:netman@127.0.0.1:$port/postgres
    local tenths
    for ((tenths = 0; tenths < 300; tenths++)); do
        if "$programs/pg_isready" -q -h 127.0.0.1 -p "$port"; then return 0; fi
        sleep 0.1
    done
    fail "PostgreSQL did not start: $(tail -n 3 "$databases/postgres.log")"
}

start_mariadb() {
    local home port log=$databases/mariadb.log care=()
    [[ $1 == careless ]] && care=(--innodb-flush-log-at-trx-commit=0)
    home=$databases/mariadb
    port=$(free_port)
    install -d -o nobody -g nogroup -m 0700 "$home"
    # Nothing of the machine's own configuration is to be read, and its name need not be known to a resolver.
    as_nobody mariadb-install-db --no-defaults --force --datadir="$home/data" --skip-test-db \
        --auth-root-authentication-method=normal >"$log" 2>&1 ||
        fail "MariaDB could not be set up: $(tail -n 3 "$log")"
    printf '%s\n' "CREATE USER netman@'%' IDENTIFIED BY 'netman';" \
        "GRANT ALL ON *.* TO netman@'%' WITH GRANT OPTION;" >"$databases/mariadb.sql"
    chmod 0644 "$databases/mariadb.sql"
    as_nobody setpriv --pdeathsig KILL -- mariadbd --no-defaults --datadir="$home/data" \
        --bind-address=127.0.0.1 --port="$port" --socket="$home/socket" --pid-file="$home/pid" \
        --skip-name-resolve --max-connections=400 --init-file="$databases/mariadb.sql" \
        "${care[@]}" >>"$log" 2>&1 </dev/null &
    export NETMAN_TEST_MYSQL=mysql://netman:netman@127.0.0.1:$port/mysql
    local tenths
    for ((tenths = 0; tenths < 300; tenths++)); do
        if mariadb-admin --no-defaults --protocol=tcp -h 127.0.0.1 -P "$port" -u netman -pnetman \
            --connect-timeout=1 ping >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "MariaDB did not start: $(tail -n 3 "$log")"
}
