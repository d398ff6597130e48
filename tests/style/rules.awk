# rules.awk - the rules of docs/style.md that a machine can check. Input: the project's .c, .h and .def files with paths
# relative to its root. Prints FILE:LINE: rule; exits 1 when it printed anything. Plain awk: nothing to install.

function complain(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; bad = 1 }

# The line without comments and without what stands in quotes. `inside` carries an open comment to the next line.
function code_of(line,   out, c, two, i, n, quote) {
    out = ""; n = length(line); quote = ""
    for (i = 1; i <= n; i++) {
        c = substr(line, i, 1); two = substr(line, i, 2)
        if (inside) { if (two == "*/") { inside = 0; i++ } continue }
        if (quote != "") { if (c == "\\") i++; else if (c == quote) { quote = ""; out = out c } continue }
        if (two == "/*") { inside = 1; i++; continue }
        if (two == "//") break
        if (c == "\"" || c == "'") quote = c
        out = out c
    }
    return out
}

function calls(code, names) { return code ~ ("(^|[^A-Za-z0-9_>.])(" names ")[ ]*\\(") }

function check_include(line,   path, top) {
    path = line; sub(/^[ \t]*#[ \t]*include[ \t]*[<"]/, "", path); sub(/[>"].*$/, "", path)
    for (i = 1; i <= n_owned; i++)
        if (path ~ owned[i] && FILENAME !~ owner[i]) complain("<" path "> belongs to " owner[i])
    if (line ~ /</) return
    top = path; sub(/\/.*$/, "", top)
    if (folder == "samples") {
        if (path != "qonnx.h" && (path ~ /\// || top in rank)) complain("a sample includes qonnx.h and its own files, not \"" path "\"")
    } else if (folder in rank && path ~ /\// && top in rank && rank[top] > rank[folder])
        complain(folder "/ must not include \"" path "\": the order is " order)
    if (folder == "kernels" && path ~ /^base\/(mem|file|map|json|buf)\.h$/) complain("a kernel takes pointers and sizes; it has no business with " path)
}

BEGIN {
    order = "base <- kernels <- onnx <- runtime <- calib <- passes <- include <- cli"
    n = split(order, part, " <- ")
    for (i = 1; i <= n; i++) rank[part[i]] = i
    n_owned = 0
    owned[++n_owned] = "^cjson/";        owner[n_owned] = "^(base/json|samples/)"
    owned[++n_owned] = "^omp\\.h$";      owner[n_owned] = "^(base/|tests/)"
    owned[++n_owned] = "^xxhash\\.h$";   owner[n_owned] = "^base/"
    owned[++n_owned] = "^protobuf-c/";   owner[n_owned] = "^onnx/"
    owned[++n_owned] = "^zip\\.h$";      owner[n_owned] = "^(tests/)?calib/"
    owned[++n_owned] = "^png\\.h$";      owner[n_owned] = "^(samples|tests)/|^passes/job/frontier_png\\.c$"
    owned[++n_owned] = "^(dnnl|oneapi/)"; owner[n_owned] = "^(runtime|tests)/"
    owned[++n_owned] = "^pcre2\\.h$";    owner[n_owned] = "^(base|calib)/|^runtime/cpu/string\.c"
    never = "abort|exit|_exit|quick_exit|getenv|secure_getenv|setenv|putenv|system|popen|rand|srand|random|strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|alloca|localtime|gmtime|setlocale|setjmp|longjmp"
    prints = "printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror|scanf"
    memory = "malloc|calloc|realloc|free|strdup|strndup|asprintf|vasprintf|aligned_alloc|posix_memalign|reallocarray|getline"
}

FNR == 1 {
    if (lines > 800) printf "%s: %d lines; a file is one idea of at most 800\n", last, lines
    if (lines > 800) bad = 1
    inside = 0; last = FILENAME
    folder = FILENAME; sub(/\/.*$/, "", folder)
    library = folder in rank && folder != "cli"
    if (FILENAME !~ /\.def$/ && $0 !~ /^\/\*/) complain("a file begins with a comment that says what it is")
}

{
    lines = FNR
    code = code_of($0)
    if (code ~ /^[ \t]*#[ \t]*include/) check_include($0)
    if ($0 ~ /(^|[^A-Za-z0-9_])(TODO|FIXME|XXX|HACK)([^A-Za-z0-9_]|$)/) complain("unfinished work has no place here")
    macro = continued || $0 ~ /^#/ || $0 ~ /\\$/
    continued = $0 ~ /\\$/
    if (folder != "tests" && length($0) > (macro || FILENAME ~ /\.def$/ ? 240 : 140)) complain("line of " length($0) " bytes")
    if ($0 ~ /[ \t]$/) complain("blank at the end of the line")
    if ($0 ~ /\t/ && FILENAME !~ /\.def$/) complain("tab")
    if (folder == "tests") next
    if (library && calls(code, never)) complain("the library never calls this: " code)
    if (library && calls(code, prints)) complain("the library never prints: " code)
    if (library && folder != "base" && FILENAME !~ /^runtime\/cuda\// && calls(code, memory)) complain("memory comes from base/mem.h: " code)
    if (!library && calls(code, "strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atof|alloca|system|popen")) complain("unsafe call: " code)
    if (library && folder != "base" && code ~ /^[ \t]*#[ \t]*pragma[ \t]+omp/ && code !~ /omp[ \t]+(simd|declare)/) complain("threads come from base/thread.h")
}

END { if (lines > 800) { printf "%s: %d lines; a file is one idea of at most 800\n", last, lines; bad = 1 } exit bad }
