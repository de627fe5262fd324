# SPDX-License-Identifier: Apache-2.0
#
# typed.zsh - what a zsh at a terminal makes of a line and a tab
#
#	zsh -f typed.zsh LINE
#
# foldctl is a function here that shows its words. Prints all that the terminal shows until then.
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -Uz compinit; compinit -u -d /tmp/zcompdump; foldctl() { print -r -- "@@$*@@" }'
zpty -w shell "$1"$'\t'
while zpty -r shell line; do
	print -r -- "$line"
	[[ $line != *@@[a-z]*@@* ]] || break
done
