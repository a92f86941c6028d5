//! `iluma-gateway completions` and `man`, which clap generates from the definitions of the commands.

use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use std::io;

/// Options of `completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway completions bash > /etc/bash_completion.d/iluma-gateway")]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

/// Returns the completions of a shell.
pub(super) fn completions(args: &Args, mut program: Command) -> String {
    let (name, mut text) = (program.get_name().to_owned(), Vec::new());
    generate(args.shell, &mut program, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns the manual page: the program, then each command.
///
/// # Errors
/// Returns an error if writing fails. Here the page is written to memory, so it never fails.
pub(super) fn manual(program: Command) -> io::Result<String> {
    let mut page = Vec::new();
    let mut program = program.disable_help_subcommand(true);
    program.build();
    Man::new(program.clone()).render(&mut page)?;
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("{} {}", program.get_name(), command.get_name());
        let command = command.clone().bin_name(&name).display_name(&name);
        let man = Man::new(command);
        page.extend_from_slice(format!(".SH \"{}\"\n", name.to_uppercase()).as_bytes());
        man.render_description_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}
