# Where instances of a slotted class keep their fields, so that a new one is filled without a call for each.
#
# Floor 1; included by wire_c.pyx and nodesconf_c.pyx. The places are read once, at import, from the class's own member
# descriptors, and a field that is not such a slot is an ImportError: nothing about a class is assumed here.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.string cimport memset

from types import MemberDescriptorType as _MemberDescriptorType

cdef extern from "structmember.h":
    const int T_OBJECT_EX
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member

cdef extern from "Python.h":
    object raw_instance "_PyObject_GC_New"(type kind)
    object zeroed_instance "PyType_GenericAlloc"(type kind, Py_ssize_t items)


cdef struct Layout:
    PyObject *kind  # a reference of its own, for as long as the module
    Py_ssize_t first  # where the fields begin
    Py_ssize_t size  # how many bytes they take


cdef Layout layout_of(object kind) except *:
    """How instances of a class are laid out that have fields in slots and nothing else."""
    cdef Layout layout
    cdef Py_ssize_t least = object.__basicsize__, count = len(kind.__dataclass_fields__)
    if kind.__basicsize__ != least + count * <Py_ssize_t>sizeof(PyObject *) or kind.__itemsize__:
        raise ImportError(f"{kind.__name__} has more to it than {count} slots")
    Py_INCREF(kind)
    layout.kind = <PyObject *>kind
    layout.first = least
    layout.size = count * sizeof(PyObject *)
    return layout


cdef inline object new_instance(Layout *layout):
    """A new instance with no field set. The cyclic collector does not see it: use it where no field leads back to it.

    CPython does the same by itself with tuples and dicts of such values; thousands of instances are slow to visit.
    """
    cdef object made
    if layout.size == 0:
        return zeroed_instance(<type>layout.kind, 0)  # a class without fields is none of the collector's
    made = raw_instance(<type>layout.kind)
    memset(<char *><PyObject *>made + layout.first, 0, layout.size)
    return made


cdef Py_ssize_t field_place(object kind, str name) except -1:
    """How many bytes into an instance of `kind` the pointer to its field `name` stands."""
    cdef object slot = kind.__dict__.get(name)
    if type(slot) is not _MemberDescriptorType or slot.__objclass__ is not kind:
        raise ImportError(f"{kind.__name__}.{name} is not a slot")
    cdef PyMemberDef *member = (<PyMemberDescrObject *>slot).d_member
    if member.type != T_OBJECT_EX:
        raise ImportError(f"{kind.__name__}.{name} is not a slot for an object")
    return member.offset


cdef inline void give(object instance, Py_ssize_t place, PyObject *value) noexcept:
    """Sets a field of a new instance, which has none at that place yet, and gives it the reference to the value."""
    (<PyObject **>(<char *><PyObject *>instance + place))[0] = value


cdef inline void put(object instance, Py_ssize_t place, object value) noexcept:
    """As `give`, with a reference of the instance's own."""
    Py_INCREF(value)
    give(instance, place, <PyObject *>value)


cdef inline PyObject *field_of(object instance, Py_ssize_t place) noexcept:
    """A field of an instance, a borrowed reference; NULL where it is not set."""
    return (<PyObject **>(<char *><PyObject *>instance + place))[0]
