//! Reads a Lua script and makes its mutants: copies that differ from it in one condition, operand or statement.
//!
//! This reader knows the part of Lua 5.1 that the scripts use, and panics at anything else.

use std::ops::Range;

/// A part of a script and the text that a mutant has in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub place: Range<usize>,
    pub replacement: String,
    /// The change in words: `a < b => true`, or `without c`.
    pub change: String,
}

/// The parts of a script.
pub struct Script {
    /// The mutants without duplicates, ordered by place.
    pub edits: Vec<Edit>,
    /// The places of the conditions of `if`, `elseif`, `while` and `until`.
    pub conditions: Vec<Range<usize>>,
}

/// Reads a script.
pub fn read(source: &str) -> Script {
    let mut reader =
        Reader { source, tokens: tokens(source), at: 0, edits: Vec::new(), conditions: Vec::new() };
    reader.block();
    assert!(reader.at == reader.tokens.len(), "{}", reader.here("the end of the script"));
    let Reader { mut edits, conditions, .. } = reader;
    edits.sort_by(|a, b| {
        (a.place.start, a.place.end, &a.replacement).cmp(&(b.place.start, b.place.end, &b.replacement))
    });
    edits.dedup();
    Script { edits, conditions }
}

/// The number of conditions of a script, counted by keywords alone.
pub fn count_conditions(source: &str) -> usize {
    let is_one = |token: &&Token| matches!(&source[token.place.clone()], "if" | "elseif" | "while" | "until");
    tokens(source).iter().filter(is_one).count()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A name or a keyword.
    Word,
    Number,
    /// A string in quotes.
    Text,
    Symbol,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    place: Range<usize>,
}

fn tokens(source: &str) -> Vec<Token> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let begin = at;
        let run = |from: usize, is_in: fn(&u8) -> bool| {
            from + bytes[from..].iter().take_while(|b| is_in(b)).count()
        };
        let kind = match bytes[at] {
            b' ' | b'\n' => {
                at += 1;
                continue;
            }
            b'-' if bytes[at..].starts_with(b"--") => {
                assert!(!bytes[at..].starts_with(b"--["), "a long comment");
                at = run(at, |byte| *byte != b'\n');
                continue;
            }
            quote @ (b'\'' | b'"') => {
                at += 1;
                while bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                Kind::Text
            }
            b'0'..=b'9' => {
                at = run(at, |byte| byte.is_ascii_alphanumeric());
                // Two dots are an operator.
                if bytes[at..].starts_with(b".") && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
                    at = run(at + 1, |byte| byte.is_ascii_alphanumeric());
                }
                Kind::Number
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                at = run(at, |byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                Kind::Word
            }
            _ => {
                let long = ["...", "..", "==", "~=", "<=", ">="];
                let symbol = long.iter().find(|symbol| source[at..].starts_with(**symbol));
                at += symbol.map_or(1, |symbol| symbol.len());
                Kind::Symbol
            }
        };
        tokens.push(Token { kind, place: begin..at });
    }
    tokens
}

/// A part of an expression.
struct Part {
    place: Range<usize>,
    /// Whether its value is a boolean.
    is_condition: bool,
}

struct Reader<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    edits: Vec<Edit>,
    conditions: Vec<Range<usize>>,
}

impl Reader<'_> {
    fn text(&self, place: &Range<usize>) -> &str {
        &self.source[place.clone()]
    }

    /// The next token, or nothing at the end.
    fn next(&self) -> &str {
        self.tokens.get(self.at).map_or("", |token| self.text(&token.place))
    }

    fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn here(&self, expected: &str) -> String {
        let start = self.begin();
        format!("not {expected}: {}", self.source[start..].lines().next().unwrap_or_default())
    }

    /// Where the next token begins.
    fn begin(&self) -> usize {
        self.tokens.get(self.at).map_or(self.source.len(), |token| token.place.start)
    }

    /// Where the token before ends.
    fn end(&self) -> usize {
        self.tokens[self.at - 1].place.end
    }

    fn skip_if(&mut self, token: &str) -> bool {
        let is_it = self.next() == token;
        self.at += usize::from(is_it);
        is_it
    }

    fn skip(&mut self, token: &str) {
        assert!(self.skip_if(token), "{}", self.here(token));
    }

    fn name(&mut self) {
        assert!(self.kind() == Some(Kind::Word), "{}", self.here("a name"));
        self.at += 1;
    }

    fn replace(&mut self, place: Range<usize>, replacement: &str) {
        if self.text(&place) == replacement {
            return;
        }
        let change = format!("{} => {replacement}", one_line(self.text(&place)));
        self.edits.push(Edit { place, replacement: replacement.to_owned(), change });
    }

    /// Leaves `place` out, which is `part` and what joins `part` to its neighbours.
    fn leave_out(&mut self, place: Range<usize>, part: &Range<usize>) {
        let change = format!("without {}", one_line(self.text(part)));
        self.edits.push(Edit { place, replacement: String::new(), change });
    }

    // Statements.

    fn block(&mut self) {
        while !matches!(self.next(), "" | "end" | "else" | "elseif" | "until") {
            self.statement();
        }
    }

    fn statement(&mut self) {
        let begin = self.begin();
        match self.next() {
            "if" => {
                while self.skip_if("if") || self.skip_if("elseif") {
                    self.condition();
                    self.skip("then");
                    self.block();
                }
                if self.skip_if("else") {
                    self.block();
                }
                self.skip("end");
            }
            "while" => {
                self.at += 1;
                self.condition();
                self.skip("do");
                self.block();
                self.skip("end");
            }
            "repeat" => {
                self.at += 1;
                self.block();
                self.skip("until");
                self.condition();
            }
            "for" => {
                self.at += 1;
                self.names();
                if !self.skip_if("=") {
                    self.skip("in");
                }
                self.expressions();
                self.skip("do");
                self.block();
                self.skip("end");
            }
            "function" => {
                self.at += 1;
                self.name();
                while self.skip_if(".") {
                    self.name();
                }
                self.function();
            }
            "local" => {
                self.at += 1;
                if self.skip_if("function") {
                    self.name();
                    self.function();
                } else {
                    self.names();
                    if self.skip_if("=") {
                        self.values();
                    }
                }
            }
            "return" => {
                self.at += 1;
                if !matches!(self.next(), "end" | "") {
                    self.values();
                }
            }
            "break" => self.at += 1,
            _ => {
                let is_call = self.suffixed();
                if self.next() == "=" || self.next() == "," {
                    while self.skip_if(",") {
                        self.suffixed();
                    }
                    self.skip("=");
                    self.values();
                } else {
                    assert!(is_call, "{}", self.here("a statement"));
                }
                let place = begin..self.end();
                self.leave_out(place.clone(), &place);
            }
        }
        self.skip_if(";");
    }

    fn names(&mut self) {
        self.name();
        while self.skip_if(",") {
            self.name();
        }
    }

    fn function(&mut self) {
        self.skip("(");
        if !self.skip_if(")") {
            loop {
                if !self.skip_if("...") {
                    self.name();
                }
                if !self.skip_if(",") {
                    break;
                }
            }
            self.skip(")");
        }
        self.block();
        self.skip("end");
    }

    fn condition(&mut self) {
        let condition = self.expression().place;
        self.replace(condition.clone(), "true");
        self.replace(condition.clone(), "false");
        self.conditions.push(condition);
    }

    /// Expressions that are returned or assigned.
    fn values(&mut self) {
        for part in self.expressions() {
            if part.is_condition {
                self.replace(part.place.clone(), "true");
                self.replace(part.place, "false");
            }
        }
    }

    // Expressions.

    fn expressions(&mut self) -> Vec<Part> {
        let mut all = vec![self.expression()];
        while self.skip_if(",") {
            all.push(self.expression());
        }
        all
    }

    fn expression(&mut self) -> Part {
        self.operands("or", |reader| reader.operands("and", Self::comparison))
    }

    /// Reads the operands of `and` or `or`: a mutant leaves out each of them.
    fn operands(&mut self, operator: &str, operand: impl Fn(&mut Self) -> Part) -> Part {
        let mut parts = vec![operand(self)];
        while self.skip_if(operator) {
            parts.push(operand(self));
        }
        let place = parts[0].place.start..self.end();
        if parts.len() > 1 {
            for (number, part) in parts.iter().enumerate() {
                let with_operator = match number {
                    0 => part.place.start..parts[1].place.start,
                    _ => parts[number - 1].place.end..part.place.end,
                };
                self.leave_out(with_operator, &part.place);
            }
        }
        let is_condition = match operator {
            "or" => parts.iter().all(|part| part.is_condition),
            _ => parts.last().is_some_and(|part| part.is_condition),
        };
        Part { place, is_condition }
    }

    fn comparison(&mut self) -> Part {
        let begin = self.begin();
        let mut is_condition = self.sum();
        while matches!(self.next(), "==" | "~=" | "<" | ">" | "<=" | ">=") {
            self.at += 1;
            self.sum();
            is_condition = true;
        }
        Part { place: begin..self.end(), is_condition }
    }

    /// Reads an operand that binds closer than a comparison. Returns whether its value is a boolean.
    fn sum(&mut self) -> bool {
        let mut is_condition = self.unary();
        while matches!(self.next(), "+" | "-" | "*" | "/" | "%" | "..") {
            self.at += 1;
            self.unary();
            is_condition = false;
        }
        is_condition
    }

    fn unary(&mut self) -> bool {
        if self.skip_if("not") {
            self.unary();
            return true;
        }
        if self.skip_if("-") || self.skip_if("#") {
            self.unary();
            return false;
        }
        match (self.kind(), self.next()) {
            (_, "{") => {
                self.table();
                false
            }
            (_, "function") => {
                self.at += 1;
                self.function();
                false
            }
            (_, "true" | "false") => {
                self.at += 1;
                true
            }
            (_, "nil" | "...") | (Some(Kind::Number | Kind::Text), _) => {
                self.at += 1;
                false
            }
            (_, "(") => self.suffixed_or_condition(),
            _ => {
                self.suffixed();
                false
            }
        }
    }

    fn suffixed_or_condition(&mut self) -> bool {
        self.skip("(");
        let is_condition = self.expression().is_condition;
        self.skip(")");
        self.suffixes().is_none() && is_condition
    }

    /// Reads a name with its fields, indexes and calls. Returns whether it ends with a call.
    fn suffixed(&mut self) -> bool {
        self.name();
        self.suffixes() == Some(true)
    }

    /// Reads fields, indexes and calls. Returns whether the last of them is a call.
    fn suffixes(&mut self) -> Option<bool> {
        let mut last = None;
        loop {
            match self.next() {
                "." => {
                    self.at += 1;
                    self.name();
                    last = Some(false);
                }
                "[" => {
                    self.at += 1;
                    self.expression();
                    self.skip("]");
                    last = Some(false);
                }
                "(" => {
                    self.call();
                    last = Some(true);
                }
                _ => return last,
            }
        }
    }

    fn call(&mut self) {
        let callee = self.tokens[self.at - 1].place.clone();
        self.skip("(");
        if self.next() == ")" {
            self.at += 1;
            return;
        }
        let arguments = self.expressions();
        self.skip(")");
        let places: Vec<_> = arguments.into_iter().map(|argument| argument.place).collect();
        match self.text(&callee) {
            "call" | "try_call" | "pcall" => self.command(&callee, &places),
            "min" | "max" => {
                for place in &places {
                    let alone = self.text(place).to_owned();
                    self.replace(callee.start - "math.".len()..self.end(), &alone);
                }
            }
            _ => {}
        }
    }

    /// Reads a call of Redis. Its mutants use the other end of a list; leave out one of several keys, members, or
    /// fields with their values; or let errors end the script.
    fn command(&mut self, callee: &Range<usize>, arguments: &[Range<usize>]) {
        let command = self.text(&arguments[0]).to_owned();
        match command.as_str() {
            "'LPUSH'" => self.replace(arguments[0].clone(), "'RPUSH'"),
            "'RPUSH'" => self.replace(arguments[0].clone(), "'LPUSH'"),
            _ => {}
        }
        let (first, step) = match command.as_str() {
            "'HSET'" => (2, 2),
            "'HDEL'" => (2, 1),
            "'EXISTS'" | "'DEL'" => (1, 1),
            _ => (arguments.len(), 1),
        };
        for at in (first..arguments.len()).step_by(step) {
            let end = arguments.len().min(at + step);
            if arguments.len() > first + step && self.text(&arguments[at]) != "..." {
                let place = arguments[at].start..arguments[end - 1].end;
                self.leave_out(arguments[at - 1].end..place.end, &place);
            }
        }
        let is_of_redis = self.source[..callee.start].ends_with("redis.");
        if self.text(callee) == "try_call" || (self.text(callee) == "pcall" && is_of_redis) {
            self.replace(callee.clone(), "call");
        }
    }

    fn table(&mut self) {
        self.skip("{");
        while !self.skip_if("}") {
            let is_named = self.tokens.get(self.at + 1).is_some_and(|token| self.text(&token.place) == "=");
            if is_named && self.kind() == Some(Kind::Word) {
                self.at += 2;
            }
            self.expression();
            if !self.skip_if(",") {
                self.skip("}");
                return;
            }
        }
    }
}

/// A text with each run of white space as one space.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_condition_operand_and_statement_of_a_script_has_its_mutants() {
    let source = "\
-- if a comment says so
local function f(a, b)
  if a == 'if' and not b then call('SET', KEY, a) end
  while (a or b) do a = a - 1 end
  local c, d = g(a) or 'none', a > 1
  return a < b
end
return math.max(f(1, 2), 3), try_call('HSET', KEY, 'x', 1, 'y', 2)
";
    let script = read(source);
    let changes: Vec<&str> = script.edits.iter().map(|edit| edit.change.as_str()).collect();
    assert_eq!(
        changes,
        [
            "without a == 'if'",
            "a == 'if' and not b => false",
            "a == 'if' and not b => true",
            "without not b",
            "without call('SET', KEY, a)",
            "(a or b) => false",
            "(a or b) => true",
            "without a",
            "without b",
            "without a = a - 1",
            "without g(a)",
            "without 'none'",
            "a > 1 => false",
            "a > 1 => true",
            "a < b => false",
            "a < b => true",
            "math.max(f(1, 2), 3) => 3",
            "math.max(f(1, 2), 3) => f(1, 2)",
            "try_call => call",
            "without 'x', 1",
            "without 'y', 2",
        ]
    );
    let mutated =
        |edit: &Edit| source[..edit.place.start].to_owned() + &edit.replacement + &source[edit.place.end..];
    let mutants: Vec<String> = script.edits.iter().map(mutated).collect();
    for expected in [
        "if not b then",
        "if a == 'if' then",
        "if true then",
        "while (b) do",
        "while (a) do",
        "local c, d = 'none', a > 1",
        "local c, d = g(a), a > 1",
        "while (a or b) do  end",
        "try_call('HSET', KEY, 'y', 2)",
        "try_call('HSET', KEY, 'x', 1)",
    ] {
        assert!(mutants.iter().any(|mutant| mutant.contains(expected)), "{expected}: {mutants:#?}");
    }
    assert_eq!((script.conditions.len(), count_conditions(source)), (2, 2));
}
