"""einsmith: attention algorithms as cascades of Einsums, from spec file to mapped accelerator and checked Triton kernel."""
