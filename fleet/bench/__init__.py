"""The benchmarks, one module each: `run(**options)` measures, `OPTIONS` names what can be set."""
