"""Where a front server keeps its configuration on this distribution, and the lines with which it shows a certificate.

Distributions put the same server's files into different places (M17). Each known place is one row below: the first one
that is here is this machine's. Nothing is written into a server's own directories.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instep.errors import UsageError

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9@%+=:,./_-]*")
"""What none of the four servers reads as more than a path."""


class FrontServer(enum.Enum):
    APACHE = "apache"
    NGINX = "nginx"
    HAPROXY = "haproxy"
    TOMCAT = "tomcat"


@dataclass(frozen=True, slots=True)
class ServerLayout:
    """One way in which a distribution installs a server.

    Attributes:
        style: the distribution, or who else installs the server so.
        there: a path that exists where it is installed so.
        file: the file for the lines; ``{name}`` is the node. A server that has one file for all gets them there.
        then: the commands that check the configuration and take it up, in their order.
        users: the users that may run the server and have to read the key themselves, the likeliest first.
    """

    style: str
    there: str
    file: str
    then: Sequence[str]
    users: Sequence[str] = ()


_APACHE_CHECK = "apachectl configtest"
_NGINX_THEN = ("nginx -t", "systemctl reload nginx")
_TOMCAT_USERS = ("tomcat", "tomcat10", "tomcat9")
LAYOUTS: Mapping[FrontServer, Sequence[ServerLayout]] = {
    FrontServer.APACHE: (
        ServerLayout("Debian", "/etc/apache2/sites-available", "/etc/apache2/sites-available/{name}.conf",
               ("a2enmod ssl", "a2ensite {name}", _APACHE_CHECK, "systemctl reload apache2")),
        ServerLayout("SUSE", "/etc/apache2/vhosts.d", "/etc/apache2/vhosts.d/{name}.conf",
               ("a2enmod ssl", _APACHE_CHECK, "systemctl reload apache2")),
        ServerLayout("Red Hat", "/etc/httpd/conf.d", "/etc/httpd/conf.d/{name}.conf",
               (_APACHE_CHECK, "systemctl reload httpd")),
        ServerLayout("Alpine", "/etc/apache2/conf.d", "/etc/apache2/conf.d/{name}.conf",
               ("httpd -t", "rc-service apache2 reload")),
        ServerLayout("Apache itself", "/usr/local/apache2/conf/httpd.conf", "/usr/local/apache2/conf/httpd.conf",
               ("/usr/local/apache2/bin/apachectl configtest", "/usr/local/apache2/bin/apachectl graceful")),
    ),
    FrontServer.NGINX: (
        ServerLayout("Debian", "/etc/nginx/sites-available", "/etc/nginx/sites-available/{name}.conf",
               ("ln -s ../sites-available/{name}.conf /etc/nginx/sites-enabled/", *_NGINX_THEN)),
        ServerLayout("Alpine", "/etc/nginx/http.d", "/etc/nginx/http.d/{name}.conf",
               ("nginx -t", "rc-service nginx reload")),
        ServerLayout("nginx, Red Hat or SUSE", "/etc/nginx/conf.d", "/etc/nginx/conf.d/{name}.conf", _NGINX_THEN),
    ),
    FrontServer.HAPROXY: (
        ServerLayout("a distribution", "/etc/haproxy/haproxy.cfg", "/etc/haproxy/haproxy.cfg",
               ("haproxy -c -f /etc/haproxy/haproxy.cfg", "systemctl reload haproxy")),
        ServerLayout("HAProxy itself", "/usr/local/etc/haproxy/haproxy.cfg", "/usr/local/etc/haproxy/haproxy.cfg",
               ("haproxy -c -f /usr/local/etc/haproxy/haproxy.cfg",)),
    ),
    FrontServer.TOMCAT: (
        *(ServerLayout("Debian", f"/etc/tomcat{version}/server.xml", f"/etc/tomcat{version}/server.xml",
                 (f"systemctl restart tomcat{version}",), _TOMCAT_USERS) for version in (11, 10, 9)),
        ServerLayout("Red Hat or SUSE", "/etc/tomcat/server.xml", "/etc/tomcat/server.xml",
               ("systemctl restart tomcat",), _TOMCAT_USERS),
        *(ServerLayout("Tomcat itself", f"{home}/conf/server.xml", f"{home}/conf/server.xml", (), _TOMCAT_USERS)
          for home in ("/opt/tomcat", "/usr/local/tomcat")),
    ),
}  # fmt: skip


def layout_here(server: FrontServer, root: Path = Path("/")) -> ServerLayout | None:
    """The layout of this machine, or of the one whose files are below ``root``; None where the server is not found."""
    return next((each for each in LAYOUTS[server] if (root / each.there.lstrip("/")).exists()), None)


@dataclass(frozen=True, slots=True)
class ExportedFiles:
    """The files that the lines name, as absolute paths. ``passphrase`` is None where the key is not encrypted."""

    certificate: Path
    key: Path
    passphrase: Path | None = None

    def require_plain(self) -> None:
        """``UsageError`` ``odd_path`` for a path that a server's file could read as more than a path."""
        for path in (self.certificate, self.key, self.passphrase):
            if path is not None and not _PLAIN_PATH.fullmatch(str(path)):
                raise UsageError(
                    f"{path} has characters that need quotes in a server's configuration",
                    hint="name a path of letters, digits and . _ - with --to",
                    code="odd_path",
                    path=str(path),
                )


def lines_for(server: FrontServer, name: str, form: str, files: ExportedFiles) -> list[str]:
    """The lines that make the server show the certificate, for ``name`` and port 443 (Tomcat: 8443)."""
    match server:
        case FrontServer.APACHE:
            return [
                f'SSLPassPhraseDialog "|/bin/cat {files.passphrase}"',
                "<VirtualHost *:443>",
                f"    ServerName {name}",
                "    SSLEngine on",
                f"    SSLCertificateFile {files.certificate}",
                f"    SSLCertificateKeyFile {files.key}",
                "</VirtualHost>",
            ]
        case FrontServer.NGINX:
            return [
                "server {",
                "    listen 443 ssl;",
                f"    server_name {name};",
                f"    ssl_certificate {files.certificate};",
                f"    ssl_certificate_key {files.key};",
                f"    ssl_password_file {files.passphrase};",
                "}",
            ]
        case FrontServer.HAPROXY:
            return ["frontend https", "    mode http", f"    bind :443 ssl crt {files.certificate}"]
        case FrontServer.TOMCAT:
            return [
                '<Connector port="8443" protocol="org.apache.coyote.http11.Http11NioProtocol" SSLEnabled="true">',
                "    <SSLHostConfig>",
                f'        <Certificate certificateKeystoreFile="{files.certificate}"',
                f'            certificateKeystoreType="{form.upper()}" certificateKeyAlias="{name}"',
                f'            certificateKeystorePasswordFile="{files.passphrase}"/>',
                "    </SSLHostConfig>",
                "</Connector>",
            ]
