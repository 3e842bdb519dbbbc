"""Loads a fetched library and prints its version. Used by scripts/setup.

    probe.py nvrtc|tensorrt-rtx|onnxruntime FOLDER
"""
import ctypes
import os
import sys


def nvrtc(folder):
    library = ctypes.CDLL(os.path.join(folder, "libnvrtc.so.13"))
    library.nvrtcGetCUBIN  # raises when it is not there
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    ctypes.CDLL(os.path.join(folder, "libnvrtc-builtins.so.%d.%d" % (major.value, minor.value)))
    return "%d.%d" % (major.value, minor.value)


def tensorrt_rtx(folder):
    runtime = ctypes.CDLL(os.path.join(folder, "libtensorrt_rtx.so.1"))
    parser = ctypes.CDLL(os.path.join(folder, "libtensorrt_onnxparser_rtx.so.1"))
    parser.createNvOnnxParser_INTERNAL  # raises when it is not there
    number = runtime.getInferLibVersion()  # 10701 is 1.7.1
    return "%d.%d.%d" % (number // 10000, number // 100 % 100, number % 100)


def onnxruntime(folder):
    class ApiBase(ctypes.Structure):
        _fields_ = [("get_api", ctypes.c_void_p), ("version", ctypes.CFUNCTYPE(ctypes.c_char_p))]

    library = ctypes.CDLL(os.path.join(folder, "libonnxruntime.so"))
    library.OrtGetApiBase.restype = ctypes.POINTER(ApiBase)
    return library.OrtGetApiBase().contents.version().decode()


if __name__ == "__main__":
    try:
        print({"nvrtc": nvrtc, "tensorrt-rtx": tensorrt_rtx, "onnxruntime": onnxruntime}[sys.argv[1]](sys.argv[2]))
    except (OSError, AttributeError) as error:
        sys.exit("it does not load: %s" % error)
