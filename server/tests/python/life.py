"""The whole life of a VM, by whatever makes calls: stubs of our files, or reflection alone.

`api` has `call(method, **fields)` for one answer, `stream(method, **fields)` for several, and `both(method, requests)`
for streams both ways; fields and answers are messages, and nested messages may be given as dictionaries.
"""

import queue
import threading
import uuid

import grpc

TIMEOUT = 60


def check(condition, *what):
    """Like assert, also when Python is told to optimize."""
    if not condition:
        raise AssertionError(*what)


def refused(call, code, reason):
    """Makes a call that has to fail, and answers what its error says."""
    try:
        call()
    except grpc.RpcError as error:
        details = api_details(error)
        check(error.code() == code, error)
        info = details["ErrorInfo"]
        check((info.reason, info.domain) == (reason, "hearth"), info)
        return details
    raise AssertionError(f"it was not refused with {reason}")


def api_details(error):
    """The details of an error, by the names of their types."""
    metadata = dict(error.trailing_metadata() or [])
    status = API.message("google.rpc.Status").FromString(metadata["grpc-status-details-bin"])
    found = {}
    for packed in status.details:
        name = packed.type_url.rsplit("/", 1)[-1]
        detail = API.message(name)()
        check(packed.Unpack(detail), packed.type_url)
        found[name.rsplit(".", 1)[-1]] = detail
    return found


def vm(method):
    return f"hearth.v1.VmService/{method}"


def pool(method):
    return f"hearth.v1.PoolService/{method}"


def operation(method):
    return f"google.longrunning.Operations/{method}"


class Watch:
    """A watch, read on a thread of its own."""

    def __init__(self, stream):
        self.stream, self.events = stream, queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for event in self.stream:
                self.events.put(event)
        except grpc.RpcError as error:
            self.events.put(error)

    def until(self, kind, name=""):
        """The next event of this kind and VM."""
        while True:
            event = self.events.get(timeout=TIMEOUT)
            if isinstance(event, grpc.RpcError):
                raise event
            kinds = type(event).DESCRIPTOR.enum_types_by_name["Type"].values_by_name
            if event.type == kinds[kind].number and (not name or event.vm.name == name):
                return event


def until_warm(api, count):
    for event in api.stream(pool("WatchPools")):
        if event.HasField("pool") and event.pool.status.warm >= count:
            return


def live(api):
    """Acquire, look, list, renew, watch, stop and start, snapshot, freeze, resume, release."""
    global API
    API = api
    until_warm(api, 4)
    watch = Watch(api.stream(vm("WatchVms"), filter="tenant = default"))
    watch.until("TYPE_SYNCED")
    request_id = str(uuid.uuid4())
    request = {"pool": "pools/default", "vm_id": "mine", "request_id": request_id}
    request |= {"ttl": {"seconds": 600}, "labels": {"team": "ci"}}
    acquired = api.call(vm("AcquireVm"), **request)
    check(acquired.source == 1 and not acquired.replayed, acquired)
    mine = acquired.vm
    check(mine.name == "vms/mine" and mine.labels["team"] == "ci", mine)
    again = api.call(vm("AcquireVm"), **request)
    check(again.replayed and again.vm.uid == mine.uid, again)
    watch.until("TYPE_ADDED", "vms/mine")

    check(api.call(vm("GetVm"), name=mine.name).uid == mine.uid)
    page = api.call(vm("ListVms"), filter='labels.team = "ci"', page_size=1)
    check([it.uid for it in page.vms] == [mine.uid] and not page.next_page_token, page)
    first = api.call(vm("ListVms"), page_size=2)
    second = api.call(vm("ListVms"), page_size=2, page_token=first.next_page_token)
    check(first.next_page_token and first.vms[1].name < second.vms[0].name, first, second)
    renewed = api.call(vm("RenewLease"), name=mine.name, uid=mine.uid, ttl={"seconds": 7200})
    check(renewed.lease.expire_time.seconds > mine.lease.expire_time.seconds, renewed)

    stopped = api.call(vm("StopVm"), name=mine.name, uid=mine.uid)
    check(stopped.state == 3, stopped)
    check(watch.until("TYPE_CHANGED", "vms/mine").vm.uid == mine.uid)
    check(api.call(vm("StartVm"), name=mine.name, uid=mine.uid).state == 2)
    talk(api, mine.name)
    snapshot = api.call(vm("SnapshotVm"), name=mine.name, snapshot_id="s1")
    check(snapshot.has_memory and snapshot.name == "vms/mine/snapshots/s1", snapshot)
    kept = api.call(vm("ListSnapshots"), parent=mine.name).snapshots
    check([it.name for it in kept] == [snapshot.name], kept)

    begun = api.call(vm("FreezeVm"), name=mine.name, artifact_id="kept")
    done = api.call(operation("WaitOperation"), name=begun.name, timeout={"seconds": 50})
    artifact = api.message("hearth.v1.Artifact")()
    check(done.done and done.response.Unpack(artifact), done)
    check((artifact.name, artifact.vm) == ("artifacts/kept", "vms/mine"), artifact)
    metadata = api.message("hearth.v1.OperationMetadata")()
    check(done.metadata.Unpack(metadata) and metadata.verb == "FreezeVm", done)
    listed = api.call(operation("ListOperations"), name="operations")
    check(begun.name in [it.name for it in listed.operations], listed)
    resumed = api.call(vm("ResumeVm"), artifact=artifact.name, vm_id="again")
    check(resumed.name == "vms/again" and resumed.uid != mine.uid, resumed)
    watch.until("TYPE_ADDED", "vms/again")
    for gone in (resumed, mine):
        api.call(vm("ReleaseVm"), name=gone.name, uid=gone.uid)
        watch.until("TYPE_DELETED", gone.name)
    errors(api, mine)
    pools(api)
    watch.stream.cancel()


def talk(api, name):
    """Bytes both ways, and the end of one half."""
    requests = [{"open": {"name": name}}, {"data": b"echo from python\n"}]
    said, opened = b"", False
    for message in api.both(vm("ConnectVm"), requests):
        opened |= message.HasField("opened")
        said += message.data
    check(opened and said == b"echo from python\n", said)


def errors(api, gone):
    """What errors say, read from their details."""
    acquire = vm("AcquireVm")
    absent = refused(
        lambda: api.call(vm("GetVm"), name=gone.name), grpc.StatusCode.NOT_FOUND, "VM_NOT_FOUND"
    )
    check(absent["ResourceInfo"].resource_name == gone.name, absent)
    check(absent["RequestInfo"].request_id, absent)
    wrong = refused(
        lambda: api.call(acquire, pool="pools/default", vm_id="Not An Id", ttl={"seconds": -1}),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
    )
    fields = [it.field for it in wrong["BadRequest"].field_violations]
    check(fields == ["vm_id", "ttl"], fields)
    check(wrong["ErrorInfo"].metadata["allocated"] == "false", wrong)
    api.call(pool("CreatePool"), pool_id="empty", pool={"template": "templates/default"})
    empty = refused(
        lambda: api.call(acquire, pool="pools/empty", overflow=3),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "POOL_EMPTY",
    )
    check(empty["RetryInfo"].HasField("retry_delay"), empty)
    ended = refused(
        lambda: api.call(vm("RenewLease"), name=gone.name),
        grpc.StatusCode.FAILED_PRECONDITION,
        "LEASE_NOT_HELD",
    )
    check(ended["PreconditionFailure"].violations[0].subject == gone.name, ended)
    refused(
        lambda: api.call(vm("ExecVm"), name=gone.name, args=["true"]),
        grpc.StatusCode.UNIMPLEMENTED,
        "METHOD_UNIMPLEMENTED",
    )


def pools(api):
    """Changes of a pool by mask and etag, and what may only be tried."""
    name = "pools/empty"
    before = api.call(pool("GetPool"), name=name)
    deeper = {"name": name, "sizing": {"fixed": {"depth": 2}}, "etag": before.etag}
    mask = {"paths": ["sizing"]}
    tried = api.call(pool("UpdatePool"), pool=deeper, update_mask=mask, validate_only=True)
    check(tried.sizing.fixed.depth == 2, tried)
    check(api.call(pool("GetPool"), name=name).etag == before.etag)
    after = api.call(pool("UpdatePool"), pool=deeper, update_mask=mask)
    check(after.sizing.fixed.depth == 2 and after.etag != before.etag, after)
    refused(
        lambda: api.call(pool("UpdatePool"), pool=deeper, update_mask=mask),
        grpc.StatusCode.ABORTED,
        "ETAG_MISMATCH",
    )
    unknown = {"paths": ["nonsense"]}
    refused(
        lambda: api.call(pool("UpdatePool"), pool={"name": name}, update_mask=unknown),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
    )
    explained = api.call(pool("ExplainPool"), name=name)
    check(explained.target == 2, explained)
    api.call(pool("DeletePool"), name=name, etag=after.etag)
    names = [it.name for it in api.call(pool("ListPools")).pools]
    check(names == ["pools/default"], names)


API = None
