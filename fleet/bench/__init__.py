"""The benchmarks, one module each: `run(**options)` measures, `OPTIONS` has the defaults."""
