#!/bin/sh
# Makes images of services out of an archive that has them all: make.sh SERVICES.tar. The store has postgres:1, postgres:2 (a new
# version of it), redis and nginx then, of one large layer and small ones.
set -eu
here=$(dirname "$0")

# image NAME FILE PLACE CHANGE…: FILE (empty: none) is put into the image at PLACE.
image() {
	name=$1 file=$2 place=$3
	shift 3
	glassbox create --name making services true
	test -z "$file" || glassbox cp "$file" "making:$place"
	for change; do
		set -- "$@" --change "$change"
		shift
	done
	glassbox commit "$@" making "$name"
	glassbox rm -v making
}

chmod 755 "$here/postgres"
glassbox import "$1" services
image postgres:1 "$here/postgres" /usr/local/bin/start-postgres 'ENV PGDATA=/var/lib/postgresql/data' \
	'ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin' 'ENTRYPOINT ["start-postgres"]' 'VOLUME /var/lib/postgresql/data' \
	'EXPOSE 5432' 'STOPSIGNAL SIGINT' 'HEALTHCHECK --interval=1s --timeout=2s --retries=2 --start-period=60s --start-interval=200ms CMD pg_isready -q -U postgres'
image redis '' '' 'USER redis' 'WORKDIR /var/lib/redis' 'VOLUME /var/lib/redis' 'EXPOSE 6379' \
	'CMD ["redis-server", "--protected-mode", "no", "--dir", "/var/lib/redis"]'
echo '<h1>well</h1>' >/tmp/index.html
image nginx /tmp/index.html /var/www/html/index.html 'EXPOSE 80' 'STOPSIGNAL SIGQUIT' 'CMD ["nginx", "-g", "daemon off;"]'
rm /tmp/index.html
glassbox create --name making postgres:1
glassbox commit --change 'LABEL version=2' making postgres:2
glassbox rm -v making
glassbox rmi services
