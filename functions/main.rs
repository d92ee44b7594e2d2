//! The command line.

mod commands;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use self::commands::args::{Cli, Command, KeyCommand, ServeArgs};
use self::commands::bill::bill;
use self::commands::configuration::{
    check, compare, make_key, place_configuration, propose, write_package,
};
use self::commands::local::local;
use self::commands::serve::serve;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let done = match command.unwrap_or_else(|| Command::Serve(ServeArgs::default())) {
        Command::Serve(args) => serve(&args),
        Command::Local(args) => local(&args),
        Command::Check(args) => check(&args),
        Command::Package(args) => write_package(&args),
        Command::Discover(args) => propose(args),
        Command::Key(KeyCommand::New { app }) => make_key(&app),
        Command::Bill(args) => bill(args),
        Command::Diff(args) => {
            return match compare(&args) {
                Ok(differs) => ExitCode::from(u8::from(differs)),
                Err(error) => {
                    let _ = writeln!(io::stderr(), "{error}");
                    ExitCode::from(2)
                }
            };
        }
        Command::Config(command) => place_configuration(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The host restarts a handler that ends with an error, never one that ends with 0.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
