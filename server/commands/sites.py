"""The commands ``fedcad server enrol``, ``sites``, ``renew`` and ``revoke``."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedcad.server.consortium import Consortium
from fedcad.server.enrolment import enrol as enrol_site
from fedcad.server.enrolment import existing, find_same
from fedcad.server.enrolment import renew as renew_site
from fedcad.server.enrolment import revoke as revoke_site
from fedcad.server.site_record import WARN_BEFORE, EnrolledSite
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.dialogue import ask_yes, printable, to_read_out
from fedcad.shared.enrolment import Enrolment, EnrolmentRequest, file_text, read_file
from fedcad.shared.errors import ConfigError, IdentityError
from fedcad.shared.signing import same_fingerprint

Folder = Annotated[Path, typer.Argument(help="The consortium's folder.", show_default=False)]
SiteName = Annotated[str, typer.Argument(help="Name of the site.", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Option(
        help="File for the hospital. Default: enrolment-NAME.json in the present folder.", show_default=False
    ),
]
_SHORT = 19


def enrol(
    folder: Folder,
    request: Annotated[Path, typer.Argument(help="The hospital's request.json.", show_default=False)],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="The fingerprint as the hospital read it out; else it is asked for.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; the fingerprint was compared.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="The site has made new keys.")] = False,
    out: Out = None,
) -> None:
    """Take a site into the consortium by its request, and make the file that goes back to it.

    Compare the fingerprint with the hospital by telephone: only that tells that the request is theirs.
    Neither file is secret. The same request again writes the same file again.
    """
    consortium = Consortium.load(folder)
    asked = read_file(request, EnrolmentRequest, "a hospital's enrolment request (request.json)")
    asked.verify()
    target = _target(out, asked.site)
    typer.echo(
        f"site         {asked.site}\nmade         {printable(asked.made)}, FedCAD {printable(asked.fedcad)}"
    )
    typer.echo(f"fingerprint\n{to_read_out(asked.fingerprint)}")
    known = find_same(consortium, asked, replace=replace)
    if known is None:
        _compare(asked.fingerprint, fingerprint, yes=yes)
    enrolment = enrol_site(consortium, asked, replace=replace)
    _write(target, enrolment)
    typer.echo(
        f"\n{asked.site} {'was enrolled already' if known else 'is enrolled'}, until {enrolment.expires[:10]}"
    )
    typer.echo(f"{target} goes back to the hospital; then, there:")
    typer.echo(f"  fedcad client join FOLDER {target.name}")
    typer.echo("and read out this consortium's fingerprint to them:")
    typer.echo(to_read_out(consortium.fingerprint))


def sites(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show whole fingerprints.")] = False,
) -> None:
    """List the sites: whether they may take part, their fingerprints, and when their certificates end."""
    consortium = Consortium.load(folder)
    now = datetime.now(UTC)
    known = consortium.sites(now)
    if as_json:
        typer.echo(json.dumps([_plain(site, now) for site in known.values()], indent=2))
        return
    console = Console(highlight=False)
    if known:
        console.print(_table(list(known.values()), now, full=full))
    else:
        typer.echo("no site is enrolled yet; next: fedcad server enrol FOLDER request.json")
    ends = consortium.listener_certificate().not_valid_after_utc
    remark = _remark_on_end(ends, now, f"fedcad server renew {folder} --server")
    typer.echo(f"\ncertificate of the server: {_days(ends, now)}{f'; {remark}' if remark else ''}")
    typer.echo(f"fingerprint of {consortium.config.name}:\n{to_read_out(consortium.fingerprint)}")


def renew(
    folder: Folder,
    name: Annotated[str | None, typer.Argument(help="Name of the site.", show_default=False)] = None,
    server: Annotated[bool, typer.Option("--server", help="Renew the server's own certificate.")] = False,
    out: Out = None,
) -> None:
    """Renew the certificate of a site, or of the server, with the same keys.

    Everything else stays valid: other sites need nothing. A site's old certificate stays valid until it ends.
    """
    consortium = Consortium.load(folder)
    if (name is None) is not server:
        raise ConfigError("give either the name of a site or --server")
    if name is None:
        certificate = consortium.renew_server_certificate(now=datetime.now(UTC))
        typer.echo(f"the server's certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
        typer.echo(f"for {consortium.config.address}; hospitals need to do nothing")
        typer.echo(f"\nnext, to use it: fedcad server stop {folder}, then fedcad server start {folder}")
        return
    existing(consortium, name)
    target = _target(out, name)
    enrolment = renew_site(consortium, name)
    _write(target, enrolment)
    typer.echo(f"{name} is enrolled until {enrolment.expires[:10]}, with the same keys")
    typer.echo(f"{target} goes to the hospital; then, there: fedcad client join FOLDER {target.name}")


def revoke(
    folder: Folder,
    name: SiteName,
    reason: Annotated[
        str, typer.Option(help="Why, for the record; shown wherever the site is named.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Exclude a site from now on; a running coordinator notices by itself.

    Its updates count no more. To take it in again, it makes new keys and is enrolled with --replace.
    """
    consortium = Consortium.load(folder)
    record = existing(consortium, name)
    if not yes and not record.revoked:
        ask_yes(f"Exclude {name} from now on?", otherwise="give --yes.")
    revoke_site(consortium, name, reason)
    typer.echo(f"{name} is revoked: {printable(reason)}")


def _compare(fingerprint: str, given: str | None, *, yes: bool) -> None:
    """Go on only if the fingerprint was compared."""
    if given is not None:
        if not same_fingerprint(fingerprint, given):
            raise IdentityError(
                f"the hospital read out\n  {given.strip()[:100]}\nwhich is another fingerprint than that "
                "of this request. Nobody was enrolled: the file is not theirs, or a digit was misheard. "
                "Call again"
            )
        return
    if not yes:
        ask_yes(
            "Did the hospital read out exactly this fingerprint by telephone?",
            otherwise="give --fingerprint, or --yes if it was compared.",
        )


def _target(out: Path | None, site: str) -> Path:
    """Return the file for a hospital; refuse to replace anything but an earlier one for the same site."""
    target = out or Path(f"enrolment-{site}.json")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{target.absolute().parent}: no such folder; make it first")
    if target.exists():
        try:
            same = read_file(target, Enrolment, "an enrolment").site == site
        except IdentityError:
            same = False
        if not same:
            raise ConfigError(f"{target} exists and is no enrolment of {site}; give another file with --out")
    return target


def _write(target: Path, enrolment: Enrolment) -> None:
    write_bytes(target, file_text(enrolment))


def _table(known: list[EnrolledSite], now: datetime, *, full: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("site", "status", "fingerprint", "enrolled", "certificate", ""):
        table.add_column(title, overflow="fold", no_wrap=title not in ("", "site"))
    colours = {"enrolled": "green", "expired": "red", "revoked": "red"}
    for site in known:
        fingerprint = site.signing_key.fingerprint
        table.add_row(
            site.name,
            f"[{colours[site.status]}]{site.status}[/]",
            to_read_out(fingerprint).replace("  ", "") if full else f"{fingerprint[:_SHORT]} …",
            f"{site.enrolled:%Y-%m-%d}",
            _days(site.expires, now),
            _remark(site, now),
        )
    return table


def _remark(site: EnrolledSite, now: datetime) -> str:
    if site.status == "revoked":
        from rich.markup import escape

        return escape(printable(site.reason))
    return _remark_on_end(site.expires, now, f"renew {site.name}")


def _remark_on_end(ends: datetime, now: datetime, remedy: str) -> str:
    return remedy if ends - now < WARN_BEFORE else ""


def _days(ends: datetime, now: datetime) -> str:
    if now >= ends:
        return f"ended {ends:%Y-%m-%d}"
    return f"{(ends - now).days} days left"


def _plain(site: EnrolledSite, now: datetime) -> dict[str, object]:
    return {
        "site": site.name,
        "status": site.status,
        "reason": site.reason,
        "fingerprint": site.signing_key.fingerprint,
        "enrolled": site.enrolled.isoformat(),
        "expires": site.expires.isoformat(),
        "days_left": site.days_left(now),
        "warning": _remark_on_end(site.expires, now, "certificate ends soon; renew it"),
    }
