"""Triton's client library, unmodified, against a running `graft serve`: HTTP and gRPC, the same calls to both.

usage: clients_v2.py HTTP_ADDRESS GRPC_ADDRESS [ADAPTER …]

Needs tritonclient[all] and numpy. Every adapter of the server is called, or those that are named; the first of them is
unloaded and loaded again, for which the server and this have one GRAFT_ADMIN_KEY. Exits 1 where something is not as the protocol has it.
"""
import json
import os
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

TEXTS = ["How far is it from Denver to Aspen ?", "Who was Galileo ?", "Marie Curie was born in Warsaw ."]
http_address, grpc_address, *named = sys.argv[1:]
failed = []


def check(what, holds):
    if not holds:
        failed.append(what)
        print(f"NOT SO: {what}", flush=True)


class Key(over_http.InferenceServerClientPlugin):
    def __call__(self, request):
        request.headers["authorization"] = f"Bearer {os.environ['GRAFT_ADMIN_KEY']}"


def tensor(kind, name, values, datatype="BYTES", **how):
    array = np.array(values, dtype=np.object_ if datatype == "BYTES" else np.int64)
    given = kind.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, **how)
    return given


def rows(result):
    """One (label, score, json, revision) a row."""
    label, score, answer, revision = (result.as_numpy(n) for n in ("label", "score", "json", "revision"))
    assert score.dtype == np.float32 and label.shape == score.shape == answer.shape == revision.shape
    decoded = zip(label, score, answer, revision)
    return [(str(l, "utf8") if isinstance(l, bytes) else l, float(s), json.loads(j), int(r)) for l, s, j, r in decoded]


def same(a, b):
    return all(x[0] == y[0] and abs(x[1] - y[1]) < 1e-5 and x[3] == y[3] for x, y in zip(a, b, strict=True))


def refused(what, call, words):
    try:
        call()
        check(f"{what} is refused", False)
    except InferenceServerException as e:
        check(f"{what}: '{e.message()}' says {words}", words in e.message())
        return e.status()


def listed(client, kind):
    index = client.get_model_repository_index()
    if kind is over_http:
        return {m["name"]: m["state"] for m in index}
    return {m.name: m.state for m in index.models}


def drive(kind, client):
    where = "http" if kind is over_http else "grpc"
    refused(f"{where}: loading without a key", lambda: client.load_model("nobody"), "a key is needed")
    client.register_plugin(Key())
    check(f"{where}: live, ready", client.is_server_live() and client.is_server_ready())
    server = client.get_server_metadata()
    name = server["name"] if where == "http" else server.name
    print(f"{where}: server {name}, models {sorted(listed(client, kind))}", flush=True)
    adapters = named or [m for m in sorted(listed(client, kind)) if version(kind, client, m) != "0"]
    base = next(m for m in sorted(listed(client, kind)) if version(kind, client, m) == "0")
    alone = {}
    for adapter in [*adapters, base]:
        check(f"{where}: {adapter} is ready", client.is_model_ready(adapter))
        answer = client.infer(adapter, [tensor(kind, "text", TEXTS)])
        alone[adapter] = rows(answer)
        shown = ", ".join(f"{label or '–'} {score:.3f}" for label, score, _, _ in alone[adapter])
        print(f"{where}: {adapter}, revision {alone[adapter][0][3]}: {shown}", flush=True)
    several(kind, client, adapters, base, alone, where)
    wanted(kind, client, adapters[0], alone, where)
    faults(kind, client, adapters[0], where)
    repository(kind, client, adapters[0], where)
    statistics(kind, client, adapters[0], where)
    return alone


def version(kind, client, model):
    metadata = client.get_model_metadata(model)
    return (metadata["versions"] if kind is over_http else metadata.versions)[0]


def several(kind, client, adapters, base, alone, where):
    """A call with a row for each adapter answers as each of them alone."""
    names = [*adapters, base, ""]
    inputs = [tensor(kind, "text", [TEXTS[0]] * len(names)), tensor(kind, "adapter", names)]
    mixed = rows(client.infer(adapters[0], inputs))
    expected = [alone[n or adapters[0]][0] for n in names]
    check(f"{where}: {len(names)} rows of as many adapters answer as each alone", same(mixed, expected))
    if kind is over_http:
        plain = [tensor(kind, "text", TEXTS, binary_data=False)]
        outputs = [kind.InferRequestedOutput(n, binary_data=False) for n in ("label", "score", "json", "revision")]
        answer = rows(client.infer(adapters[0], plain, outputs=outputs))
        check("http: tensors as JSON answer as those of bytes", same(answer, alone[adapters[0]]))
    for packed in ("gzip", "deflate"):
        how = {"request_compression_algorithm" if kind is over_http else "compression_algorithm": packed}
        answer = client.infer(adapters[0], [tensor(kind, "text", TEXTS)], **how)
        check(f"{where}: {packed} answers as plain", same(rows(answer), alone[adapters[0]]))
    running = [client.async_infer(adapters[0], [tensor(kind, "text", TEXTS)]) for _ in range(8)] if kind is over_http else []
    check(f"{where}: calls at once", all(same(rows(r.get_result()), alone[adapters[0]]) for r in running))


def wanted(kind, client, adapter, alone, where):
    outputs = [kind.InferRequestedOutput("score")]
    served = version(kind, client, adapter)
    answer = client.infer(adapter, [tensor(kind, "text", TEXTS)], model_version=served, outputs=outputs, request_id="7")
    check(f"{where}: only what is wanted", answer.as_numpy("label") is None)
    scores = answer.as_numpy("score")
    check(f"{where}: the wanted", np.allclose(scores, [s for _, s, _, _ in alone[adapter]], atol=1e-5))
    head = answer.get_response()
    head = head if where == "http" else {"id": head.id, "model_version": head.model_version}
    check(f"{where}: id and version come back", (head["id"], head["model_version"]) == ("7", served))
    # Small ones, which the smallest base has.
    ids = [[2, 21, 25, 3, 0], [2, 20, 3, 0, 0]]
    mask = [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    inputs = [tensor(kind, "input_ids", ids, "INT64"), tensor(kind, "attention_mask", mask, "INT64")]
    padded = rows(client.infer(adapter, inputs))
    short = rows(client.infer(adapter, [tensor(kind, "input_ids", [r[:3] for r in ids[1:]], "INT64")]))
    check(f"{where}: padding does not count", same(padded[1:], short))


def faults(kind, client, adapter, where):
    text = [tensor(kind, "text", ["a"])]
    unknown = "404" if kind is over_http else "StatusCode.NOT_FOUND"
    invalid = "400" if kind is over_http else "StatusCode.INVALID_ARGUMENT"
    call = client.infer
    status = refused(f"{where}: an unknown model", lambda: call("nobody", text), "no adapter 'nobody'")
    check(f"{where}: an unknown model is {unknown}", status == unknown)
    rows_of = [*text, tensor(kind, "adapter", ["nobody"])]
    status = refused(f"{where}: an unknown adapter of a row", lambda: call(adapter, rows_of), "no adapter 'nobody'")
    check(f"{where}: an unknown adapter of a row is {unknown}", status == unknown)
    status = refused(f"{where}: another version", lambda: call(adapter, text, model_version="999"), "not 999")
    check(f"{where}: another version is {unknown}", status == unknown)
    status = refused(f"{where}: an unknown input", lambda: call(adapter, [tensor(kind, "texts", ["a"])]), "no input")
    check(f"{where}: an unknown input is {invalid}", status == invalid)
    check(f"{where}: nobody is not ready", not client.is_model_ready("nobody"))
    refused(f"{where}: metadata of nobody", lambda: client.get_model_metadata("nobody"), "no adapter 'nobody'")


def repository(kind, client, adapter, where):
    before = int(version(kind, client, adapter))
    client.load_model(adapter)
    check(f"{where}: loading the same files again changes nothing", int(version(kind, client, adapter)) == before)
    client.unload_model(adapter)
    check(f"{where}: unloaded", not client.is_model_ready(adapter) and listed(client, kind)[adapter] == "UNAVAILABLE")
    client.load_model(adapter)
    check(f"{where}: loaded", client.is_model_ready(adapter) and listed(client, kind)[adapter] == "READY")
    refused(f"{where}: a folder that is not there", lambda: client.load_model("nobody"), "no adapter 'nobody'")
    config = client.get_model_config(adapter)
    config = config if kind is over_http else client.get_model_config(adapter, as_json=True)["config"]
    check(f"{where}: the configuration has the digest", config["parameters"]["digest"]["string_value"])


def statistics(kind, client, adapter, where):
    rows(client.infer(adapter, [tensor(kind, "text", TEXTS)]))
    stats = client.get_inference_statistics(adapter, **({} if kind is over_http else {"as_json": True}))
    found = stats["model_stats"][0]
    check(f"{where}: statistics count rows", int(found["inference_count"]) == len(TEXTS))
    print(f"{where}: statistics {json.dumps(found['inference_stats']['success'])}", flush=True)


with over_http.InferenceServerClient(http_address, concurrency=8) as client:
    of_http = drive(over_http, client)
with over_grpc.InferenceServerClient(grpc_address) as client:
    of_grpc = drive(over_grpc, client)
for adapter, answers in of_http.items():
    plain = [(label, score, answer, 0) for label, score, answer, _ in answers]
    check(f"{adapter}: HTTP and gRPC agree", same(plain, [(l, s, j, 0) for l, s, j, _ in of_grpc[adapter]]))
print(f"{len(failed)} things are not so" if failed else "all of it holds")
sys.exit(bool(failed))
