/* shell_attack.c: run.c's main with all kinds of arguments, in one process, letting each allocation
in turn fail.

   usage: shell_attack FOLDER MODEL...      prints "N runs" on standard error, or what went wrong,
   with exit code 1

   FOLDER is for scratch files.  A run has to end with one of the documented exit codes, 3 where
   memory was refused, to say why in one line unless it is 0, and to lose no memory. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t living;                  // allocations that have not been freed
// fails when it is counted down to 0; at or below 0 from the start: never
static int64_t failing;
static int terminal;                    // what isatty says
static int full;                        // 1: standard output takes nothing more; 2: it once did not
static FILE *errors;                    // in place of stderr, which is left to the sanitizers

static int allocate(void)
{
    const int refused = failing > 0 && --failing == 0;
    if (refused) errno = ENOMEM;
    living += !refused;
    return !refused;
}

static void *counted_malloc(size_t size) { return allocate() ? malloc(size) : NULL; }

static void *counted_calloc(size_t count, size_t size)
{
    return allocate() ? calloc(count, size) : NULL;
}

static void *counted_aligned_alloc(size_t align, size_t size)
{
    return allocate() ? aligned_alloc(align, size) : NULL;
}

static void counted_free(void *memory) { living -= memory != NULL; free(memory); }

static void *counted_realloc(void *memory, size_t size)
{
    if (!allocate()) return NULL;
    living--;
    return realloc(memory, size);
}

static ssize_t counted_getline(char **line, size_t *room, FILE *stream)
{
    living += *line == NULL;
    return getline(line, room, stream);
}

static int watched_fflush(FILE *file) { return full == 1 ? EOF : fflush(file); }
static int watched_ferror(FILE *file) { return full == 2 ? (errno = EIO) : ferror(file); }

#define malloc counted_malloc
#define calloc counted_calloc
#define realloc counted_realloc
#define aligned_alloc counted_aligned_alloc
#define free counted_free
#define getline counted_getline
#define isatty(file) terminal
#define fflush watched_fflush
#undef ferror
#define ferror watched_ferror
#undef stderr
#define stderr errors
#define main run_main
#include "../../run.c"
#undef main
#undef fflush
#undef ferror
#undef stderr
extern FILE *stderr;

// M: the model.  T: a text of two lines.  2: of two tokens.  9: of many.  L: a long text.  E: an
// empty file.  N: no file. F: the folder.
static const char *const SESSIONS[] = {
    "M -i aab -n 3", "M -i aab -t 0", "M -i aab -t 1 -k 2 -p 0.9 -m 0.01 -s 3 -j 2", "M -f T -n 2",
    "M -i - -n 2", "M",
    "M -f E", "M --info", "M --score T", "M --score T -j 2", "M --score -", "M --score E",
    "M --score 9", "M --score 2",
    "-h", "--help M -q", "M --logprobs -i aab", "M --logprobs -f T", "M --logprobs -f E",
    "M --logprobs -i a",
    "M --logprobs -i \"\\\x80", "M --attention 0,0 -i aab", "M --attention 9,0 -i aab",
    "M --attention 0,9 -i aab",
    "M --attention 0,0 -f E", "", "-", "--nope M", "-x M", "M M", "M -i", "M --score",
    "M -i a -f T", "M --score T -i a",
    "M --info --logprobs", "M --info --info", "M --info -h", "M -n 0", "M -n 1.5", "M -n x",
    "M -n 5x", "M -t nan", "M -t -1",
    "M -t 1e999", "M -k -1", "M -p 0", "M -m 2", "M -j 999", "M -s -1", "M -s 5x", "M -s x",
    "M -s 99999999999999999999999",
    "M --attention 0", "M --attention x,1", "M --attention 0,0,0",
    "M --attention 00000000000000000,0", "M -f N", "M -f F",
    "M --score N", "N -i a", "F -i a", "T -i a", "M -i zz", "M -i \x01", "M --score F",
    "M -i aaaaaaaaaaaaaaaaa", "M -f L",
    "M --logprobs -f L", "M -i a -n 1000",
};

static void write_file(const char *path, const char *text, int times)
{
    FILE *file = fopen(path, "wb");
    for (int i = 0; i < times && file; i++) fputs(text, file);
    if (!file || fclose(file)) perror(path), exit(1);
}

// One line, begun as all complaints are, perhaps after a note
static int is_complaint(FILE *file)
{
    char text[2000], *line = text;
    rewind(file);
    size_t size = fread(text, 1, sizeof text - 1, file);
    text[size] = 0;
    if (!memcmp(text, "note: ", 6) && strchr(text, '\n')) line = strchr(text, '\n') + 1;
    return !memcmp(line, "run: ", 5) && strchr(line, '\n') == text + size - 1;
}

// Run a session in which allocation `nth` fails, none with 0, which says how it ends otherwise.  ->
// whether it came to it
static int run_session(const char *session, const char *folder, const char *model, int64_t nth)
{
    static int usual;
    char words[100], paths[3][1000], *argv[20] = {words};
    int argc = 1;
    snprintf(words, sizeof words, "run %s", session);
    strtok(words, " ");
    for (char *word; (word = strtok(NULL, " "));) {
        const char *letter = strlen(word) == 1 ? strchr("T29LEN", *word) : NULL;
        argv[argc++] = word;
        if (!strcmp(word, "M")) snprintf(argv[argc - 1] = paths[0], sizeof *paths, "%s", model);
        else if (!strcmp(word, "F")) snprintf(argv[argc - 1] = paths[1], sizeof *paths, "%s",
                                              folder);
        else if (letter) snprintf(argv[argc - 1] = paths[2], sizeof *paths, "%s/%c", folder,
                                  *letter);
    }
    errors = tmpfile();
    char standard_input[1000];
    snprintf(standard_input, sizeof standard_input, "%s/I", folder);
    if (!errors || !freopen(standard_input, "rb", stdin)) perror(standard_input), exit(1);
    failing = nth;
    const int status = run_main(argc, argv), refused = nth > 0 && failing == 0;
    failing = 0;
    if (nth == 0) usual = status;
    int right = status == usual && status >= MT_OK && status <= MT_RUN && status != MT_MEMORY;
    // without memory: what is wrong with the arguments may be found before, and who sits at a
    // terminal is only told
    if (refused) right = status == MT_MEMORY || (status == usual && (usual || terminal));
    if (!right || (status && !is_complaint(errors)) || living) {
        fprintf(stderr, "%s, %s, allocation %d: exit code %d, %d allocations lost\n", session,
                model, (int)nth, status,
                (int)living);
        exit(1);
    }
    fclose(errors);
    return refused;
}

int main(int argc, char **argv)
{
    const struct { const char *name, *text; int times; } files[] = {
        {"T", "aab\naa\n", 1}, {"L", "a", 200000}, {"9", "aab", 9}, {"2", "aab", 1}, {"E", "", 0},
        {"I", "aab\n\naab", 1},           // standard input
    };
    char path[1000];
    long runs = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", argv[1], files[i].name);
        write_file(path, files[i].text, files[i].times);
    }
    if (!freopen("/dev/null", "w", stdout)) perror("/dev/null"), exit(1);
    for (int i = 2; i < argc; i++)
        for (int mode = 0; mode < 4; mode++)
            for (size_t s = 0; s < sizeof SESSIONS / sizeof *SESSIONS; s++)
                for (int64_t nth = 0, more = 1; more; nth++, runs++) {
                    terminal = mode == 1;
                    full = mode > 1 ? mode - 1 : 0;
                    more = run_session(SESSIONS[s], argv[1], argv[i], nth) || nth == 0;
                }
    fprintf(stderr, "%ld runs\n", runs);
    return 0;
}
