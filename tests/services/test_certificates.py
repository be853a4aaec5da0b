"""Certificates and clocks over years, with clocks that are moved by hand."""

from __future__ import annotations

from pathlib import Path

from instep.net.trust.certs import facts_of
from instep.net.trust.decoding import certificates_of_pem
from instep.net.trust.pki_problems import problems_of
from instep.net.trust.shown import Shown, ShownChain
from instep.node.runtime.driver import shift_wall_clock, skip_time, wall_ms
from tests.support.certificates import OtherAuthority, new_key, pem_of_key
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

DAY_S = 86_400.0


async def _begun(cluster: Services) -> ServiceNode:
    """``main`` holds the CA and has published once; ``s1`` is in step."""
    cluster.make(1)
    main = cluster["main"]
    main.node.pki.take_ca(
        (cluster.authority.directory / "ca.key").read_bytes(), cluster.authority.crl_pem(), {}
    )
    main.write({"file": "1"})
    await cluster.followed("s1")
    await cluster.in_step("s1")
    return main


async def _renewed(*nodes: ServiceNode) -> None:
    async def is_so() -> bool:
        return not any(node.node.pki.is_renewal_due(wall_ms()) for node in nodes)

    await reached(is_so, lambda: str([node.node.renewal.trouble for node in nodes]), 300.0)


@in_virtual_time
async def test_a_line_that_nobody_changed_for_years_is_accepted_by_a_new_partner(tmp_path: Path) -> None:
    """Goal: certificates are renewed in time again and again, and the writer's head is signed by the present one."""
    async with services(tmp_path) as cluster:
        main = await _begun(cluster)
        for _ in range(5):
            skip_time(
                70 * DAY_S if main.node.pki.is_renewal_due(wall_ms() + 70 * 86_400_000) else 300 * DAY_S
            )
            await _renewed(main, cluster["s1"])
        assert not problems_of(main.node.pki, wall_ms())
        await main.stop()
        cluster.add("s2").follows(main)
        cluster.link("main", "s2")
        main.configure()
        main.start()
        cluster["s2"].start()
        await cluster["s2"].stands("in_step")
        assert await cluster["s2"].head() == 1 == await main.head()


@in_virtual_time
async def test_a_clock_that_jumped_renews_nothing_and_says_the_way_out(tmp_path: Path) -> None:
    """Goal: alone and a year ahead the writer keeps its certificates and says why; a certificate of that clock, made by
    hand, is replaced by itself once the clock is right and a partner agrees."""
    async with services(tmp_path) as cluster:
        main = await _begun(cluster)
        cluster.cut(main.name, cluster["s1"].name)
        try:
            shift_wall_clock(395 * 86_400_000)

            async def is_said() -> bool:
                return any("were not renewed" in one for one in (await main.status())["warnings"])

            await reached(is_said, lambda: str(main.node.renewal.trouble), 300.0)
            warnings = "\n".join((await main.status())["warnings"])
            assert "node.crt expired on" in warnings and "instep pki renew" in warnings, warnings
            assert problems_of(main.node.pki, wall_ms()), "it was renewed"
            await main.call("renew")
            assert not problems_of(main.node.pki, wall_ms())
        finally:
            shift_wall_clock(0)
        assert {one.what for one in problems_of(main.node.pki, wall_ms())} == {"early"}
        cluster.heal(main.name, cluster["s1"].name)
        await _renewed(main)
        assert not problems_of(main.node.pki, wall_ms())
        await cluster["s1"].stands("in_step")


@in_virtual_time
async def test_a_cluster_outlives_its_ca(tmp_path: Path) -> None:
    """Goal: the CA's own certificate is renewed in time and reaches every node; after years with all switched off two
    commands bring it back, and the first is what ``status`` names."""
    async with services(tmp_path) as cluster:
        main = await _begun(cluster)
        s1 = cluster["s1"]
        first = main.node.pki.authorities_pem()
        while main.node.pki.authorities_pem() == first or s1.node.pki.authorities_pem() == first:
            skip_time(270 * DAY_S)
            await _renewed(main, s1)
        assert wall_ms() < facts_of(certificates_of_pem(first)[0]).not_after_ms, "long before its end"
        await s1.stop()
        await main.stop()
        skip_time(3_700 * DAY_S)
        main.start()
        s1.start()
        warned = [one for one in (await main.status())["warnings"] if one.startswith("ca.crt ended")]
        assert warned and warned[0].endswith("; next: instep pki renew"), warned
        await main.call("renew")
        await s1.call("renew")
        for node in (main, s1):
            assert not problems_of(node.node.pki, wall_ms())
        main.write({"file": "after eleven years"})
        await s1.holds("file", "after eleven years")


@in_virtual_time
async def test_a_certificate_of_another_ca_ends_and_the_node_goes_on(tmp_path: Path) -> None:
    """Goal: its end is in ``status`` and the events before it comes; then the node shows its own certificate again, its
    voucher is renewed meanwhile, and the cluster's renewals go on below."""
    async with services(tmp_path) as cluster:
        main = await _begun(cluster)
        other, shown = OtherAuthority(wall_ms()), Shown(main.node.pki)
        key = new_key()
        leaf = other.issue(["main"], key, days=(-1, 390))
        shown.use(ShownChain((leaf, other.issuer), pem_of_key(key)), wall_ms())
        await main.call("reload_config")
        assert main.node.tls.shows is not None
        first = shown.current(wall_ms())
        assert first is not None
        sent = first.for_partners.read_bytes()

        async def kinds() -> list[str]:
            return [one["what"] for one in await main.events()]

        async def is_sent_anew() -> bool:
            return first.for_partners.read_bytes() != sent

        async def is_said() -> bool:
            return "certificate_ends" in await kinds()

        async def is_over() -> bool:
            return main.node.tls.shows is None

        skip_time(20 * DAY_S)
        await reached(is_sent_anew, lambda: "its voucher", 300.0)
        skip_time(300 * DAY_S)
        await _renewed(main, cluster["s1"])
        skip_time(60 * DAY_S)
        await reached(is_said, lambda: str(shown.state(wall_ms())), 300.0)
        warned = [one for one in (await main.status())["warnings"] if one.startswith("shown.pem ends on")]
        assert warned and "next: instep pki use FILE" in warned[0]
        skip_time(20 * DAY_S)
        await reached(is_over, lambda: str(shown.state(wall_ms())), 300.0)
        assert (await kinds()).count("certificate_shown") == 2
        assert any("shown.pem expired on" in one for one in (await main.status())["warnings"])
        main.write({"file": "after its end"})
        await cluster["s1"].holds("file", "after its end")
