//! The `tenantgate` command: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenantgate::cli::main()
}
