/* Stands in for a program of the system: appends its raw command line to
   C:\recorder.log, prints C:\recorder-NAME.txt, and exits with the number in that
   file's first line. NAME is its own, without ".exe". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

int main(void)
{
    char own[MAX_PATH], path[MAX_PATH], line[4096];
    int code = 0;

    FILE *log = fopen("C:\\recorder.log", "ab");
    if (log == NULL)
        return 99;
    /* As UTF-8: the code page may lack a letter. */
    if (!WideCharToMultiByte(CP_UTF8, 0, GetCommandLineW(), -1, line, sizeof line, 0, 0))
        return 98;
    fprintf(log, "%s\n", line);
    fclose(log);

    GetModuleFileNameA(NULL, own, sizeof own);
    char *name = strrchr(own, '\\') + 1;
    *strrchr(name, '.') = '\0';
    snprintf(path, sizeof path, "C:\\recorder-%s.txt", name);
    FILE *answer = fopen(path, "r");
    if (answer == NULL)
        return 0;
    if (fgets(line, sizeof line, answer))
        code = atoi(line);
    while (fgets(line, sizeof line, answer))
        fputs(line, stdout);
    fclose(answer);
    return code;
}
