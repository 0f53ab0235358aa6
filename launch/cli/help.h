// The manual, from the commands' own words and flags: on the terminal, and as docs/cli.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/cli/command.h"

namespace deeper {

std::string Overview(const std::vector<std::unique_ptr<Command>>& commands);
std::string HelpOf(Command& command);
std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands);

}  // namespace deeper
