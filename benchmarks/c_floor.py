"""What the same work takes in plain C: the floor under the compiled leaves, and their distance to it.

Run: python benchmarks/c_floor.py. The source below is compiled at run time through cffi, with the flags of the leaves.
Each function does the work `number` times inside and gives the seconds, so no call from Python is in the floor, while
every call of a leaf has one in it. Needs: cffi, a C compiler, the headers of this Python.
"""

from __future__ import annotations

import importlib.util
import tempfile
from functools import partial
from types import ModuleType
from typing import Any

import cffi

from cases import THOUSAND_NODES, append_entries, plain_nodes
from measuring import Case, measure, ratio, shown
from raftfast.hot import log_c, nodesconf_c, wire_c
from raftfast.records import NodeRecord

__all__ = ["compiled_floor", "crc_case", "decode_case", "encode_case", "nodes_case"]

DECLARATIONS = """
double floor_decode(const char *payload, size_t size, long number);
double floor_encode(void *lines, size_t head, long number);
double floor_crc64(const unsigned char *data, size_t size, long number);
void floor_fill_crc(void);
double floor_nodes(void *records, void *names, void *type, long number);
"""

SOURCE = r"""
#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* AE, decoded: finds the line ends, makes a bytes object of each line, and the two tuples; checks nothing. */
static void decode_once(const char *at, const char *end, PyObject *term) {
    Py_ssize_t count = 0, i;
    const char *p;
    at = (const char *)memchr(at, '\n', end - at) + 1;
    for (p = at; (p = memchr(p, '\n', end - p)); p++) count++;
    count++;
    PyObject *lines = PyTuple_New(count), *terms = PyTuple_New(count);
    for (i = 0; i < count; i++) {
        p = memchr(at, '\n', end - at);
        if (p == NULL) p = end;
        PyTuple_SET_ITEM(lines, i, PyBytes_FromStringAndSize(at, p - at));
        Py_INCREF(term);
        PyTuple_SET_ITEM(terms, i, term);
        at = p + 1;
    }
    Py_DECREF(lines);
    Py_DECREF(terms);
}

double floor_decode(const char *payload, size_t size, long number) {
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *term = PyLong_FromLong(7);
    double start = now();
    for (long i = 0; i < number; i++) decode_once(payload, payload + size, term);
    double took = now() - start;
    Py_DECREF(term);
    PyGILState_Release(gil);
    return took;
}

/* AE, encoded: one bytes object for `head` bytes and the lines, a newline before each. */
double floor_encode(void *tuple, size_t head, long number) {
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *lines = tuple;
    Py_ssize_t count = PyTuple_GET_SIZE(lines), k;
    double start = now();
    for (long i = 0; i < number; i++) {
        size_t size = head;
        for (k = 0; k < count; k++) size += 1 + PyBytes_GET_SIZE(PyTuple_GET_ITEM(lines, k));
        PyObject *whole = PyBytes_FromStringAndSize(NULL, size);
        char *at = PyBytes_AS_STRING(whole);
        memset(at, 0, head);
        at += head;
        for (k = 0; k < count; k++) {
            PyObject *line = PyTuple_GET_ITEM(lines, k);
            *at++ = '\n';
            memcpy(at, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line));
            at += PyBytes_GET_SIZE(line);
        }
        Py_DECREF(whole);
    }
    double took = now() - start;
    PyGILState_Release(gil);
    return took;
}

/* CRC-64, slice by eight. */
static uint64_t table[8][256];

void floor_fill_crc(void) {
    for (int value = 0; value < 256; value++) {
        uint64_t crc = value;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x95AC9329AC4BC9B5u : crc >> 1;
        table[0][value] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int value = 0; value < 256; value++)
            table[k][value] = table[0][table[k - 1][value] & 0xFF] ^ table[k - 1][value] >> 8;
}

double floor_crc64(const unsigned char *data, size_t size, long number) {
    static volatile uint64_t kept;
    double start = now();
    for (long i = 0; i < number; i++) {
        const unsigned char *at = data;
        size_t left = size;
        uint64_t crc = kept & 1;
        for (; left >= 8; left -= 8, at += 8) {
            uint64_t word;
            memcpy(&word, at, 8);
            crc ^= word;
            crc = table[7][crc & 0xFF] ^ table[6][crc >> 8 & 0xFF] ^ table[5][crc >> 16 & 0xFF]
                ^ table[4][crc >> 24 & 0xFF] ^ table[3][crc >> 32 & 0xFF] ^ table[2][crc >> 40 & 0xFF]
                ^ table[1][crc >> 48 & 0xFF] ^ table[0][crc >> 56];
        }
        for (; left; left--, at++) crc = table[0][(crc ^ *at) & 0xFF] ^ crc >> 8;
        kept = crc;
    }
    return now() - start;
}

/* Nodes: makes again, and lets go, the objects that a parsed file consists of. Nothing is read, checked or looked up.
   What the leaf shares is shared here: flags, the ids of primaries, ints that the node before has too. */
#define FIELDS 15

static PyObject *copy_of(PyObject *value) {
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(value);
        PyObject *made = PyUnicode_New(size, 127);
        memcpy(PyUnicode_DATA(made), PyUnicode_DATA(value), size);
        return made;
    }
    if (PyLong_CheckExact(value)) return PyLong_FromUnsignedLongLong(PyLong_AsUnsignedLongLong(value));
    if (PyDict_CheckExact(value)) {
        PyObject *made = PyDict_New(), *key, *item;
        Py_ssize_t at = 0;
        while (PyDict_Next(value, &at, &key, &item)) {
            item = copy_of(item);
            PyDict_SetItem(made, key, item);
            Py_DECREF(item);
        }
        return made;
    }
    if (PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) && !PyUnicode_CheckExact(PyTuple_GET_ITEM(value, 0))) {
        PyObject *made = PyTuple_New(PyTuple_GET_SIZE(value));
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++)
            PyTuple_SET_ITEM(made, i, copy_of(PyTuple_GET_ITEM(value, i)));
        PyObject_GC_UnTrack(made);
        return made;
    }
    Py_INCREF(value);
    return value;
}

double floor_nodes(void *tuple, void *names, void *type, long number) {
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *records = tuple;
    Py_ssize_t count = PyTuple_GET_SIZE(records);
    Py_ssize_t offsets[FIELDS];
    int primary = 0;
    for (int k = 0; k < FIELDS; k++) {
        PyObject *name = PyTuple_GET_ITEM((PyObject *)names, k);
        PyObject *slot = PyObject_GetAttr(type, name);
        if (PyUnicode_CompareWithASCIIString(name, "primary_id") == 0) primary = k;
        offsets[k] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_DECREF(slot);
    }
    double start = now();
    for (long i = 0; i < number; i++) {
        PyObject *made = PyTuple_New(count);
        char *before = NULL;
        for (Py_ssize_t n = 0; n < count; n++) {
            char *from = (char *)PyTuple_GET_ITEM(records, n);
            PyObject *record = _PyObject_GC_New(type);
            for (int k = 0; k < FIELDS; k++) {
                PyObject *value = *(PyObject **)(from + offsets[k]);
                PyObject *shared = before == NULL ? NULL : *(PyObject **)(before + offsets[k]);
                if (k == primary || value == shared) Py_INCREF(value);
                else value = copy_of(value);
                *(PyObject **)((char *)record + offsets[k]) = value;
            }
            PyTuple_SET_ITEM(made, n, record);
            before = from;
        }
        Py_DECREF(made);
    }
    double took = now() - start;
    PyGILState_Release(gil);
    return took;
}
"""


def compiled_floor() -> ModuleType:
    """The module made of the source above."""
    builder = cffi.FFI()
    builder.cdef(DECLARATIONS)
    builder.set_source(
        "_raftfast_floor",
        SOURCE,
        extra_compile_args=["-O3", "-g0"],
        define_macros=[("_CFFI_NO_LIMITED_API", None)],
        py_limited_api=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        spec = importlib.util.spec_from_file_location("_raftfast_floor", builder.compile(tmpdir=folder))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    module.lib.floor_fill_crc()
    return module


def decode_case(floor: Any) -> Case:
    payload = wire_c.encode(append_entries(100))[8:]
    kept = floor.ffi.from_buffer(payload)
    return Case(lambda number: floor.lib.floor_decode(kept, len(payload), number), clocked=True)


def encode_case(floor: Any) -> Case:
    message = append_entries(100)
    lines = message.lines
    head = len(wire_c.encode(message)) - sum(map(len, lines)) - len(lines)
    at = floor.ffi.cast("void *", id(lines))
    return Case(lambda number: floor.lib.floor_encode(at, head, number) if lines else 0, clocked=True)


def crc_case(floor: Any, data: bytes) -> Case:
    kept = floor.ffi.from_buffer(data)
    return Case(lambda number: floor.lib.floor_crc64(kept, len(data), number), clocked=True)


def nodes_case(floor: Any, records: tuple[NodeRecord, ...]) -> Case:
    names = tuple(NodeRecord.__dataclass_fields__)
    at = [floor.ffi.cast("void *", id(each)) for each in (records, names, NodeRecord)]
    return Case(lambda number: floor.lib.floor_nodes(*at, number) if records and names else 0, clocked=True)


def main() -> None:
    floor = compiled_floor()
    message = append_entries(100)
    payload = wire_c.encode(message)[8:]
    log = log_c.RaftLog()
    log.extend(message.terms, message.lines)
    plain = plain_nodes()
    rows: list[tuple[str, Case, Case, str]] = [
        ("decode an AE 100 x 64", Case(partial(wire_c.decode, payload)), decode_case(floor), "2"),
        ("encode an AE 100 x 64", Case(partial(wire_c.encode, message)), encode_case(floor), "1.5"),
        (
            "objects of 1,000 nodes",
            Case(partial(nodesconf_c.parse, THOUSAND_NODES)),
            nodes_case(floor, nodesconf_c.parse(THOUSAND_NODES).nodes),
            "",
        ),
        (
            "the same without aux fields",
            Case(partial(nodesconf_c.parse, plain)),
            nodes_case(floor, nodesconf_c.parse(plain).nodes),
            "",
        ),
    ]
    for size in (64, 256, 4096, 1 << 20):
        data = bytes(range(64)) * (size // 64)
        rows.append((f"crc64 of {size} bytes", Case(partial(nodesconf_c.crc64, data)), crc_case(floor, data), "1"))
    print(f"{'work':32}{'leaf':>12}{'plain C':>12}{'leaf / C':>18}  at most")
    for name, leaf, plain_c, most in rows:
        times = measure({"leaf": leaf, "c": plain_c})
        one, other = times["leaf"], times["c"]
        print(f"{name:32}{shown(one.least):>12}{shown(other.least):>12}{ratio(one, other):>18}  {most}", flush=True)


if __name__ == "__main__":
    main()
