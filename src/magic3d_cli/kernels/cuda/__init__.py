"""CUDA C++ kernels, compiled on the user's machine by NVRTC: no compiler, no build."""
