/* Stands in for a program of Windows: adds its command line, as it came, to the file
   <itself>.calls; prints <itself>.says; ends with 3 if <itself>.fails is there. */
#include <stdio.h>
#include <wchar.h>
#include <windows.h>

static FILE *beside(const wchar_t *suffix, const wchar_t *mode)
{
    wchar_t path[MAX_PATH + 16];
    GetModuleFileNameW(NULL, path, MAX_PATH);
    wcscat(path, suffix);
    return _wfopen(path, mode);
}

int main(void)
{
    char line[32768];
    FILE *calls = beside(L".calls", L"ab");
    if (!calls || !WideCharToMultiByte(CP_UTF8, 0, GetCommandLineW(), -1, line,
                                       sizeof line, NULL, NULL))
        return 4;
    fprintf(calls, "%s\n", line);
    fclose(calls);
    FILE *says = beside(L".says", L"rb");
    if (says) {
        size_t length = fread(line, 1, sizeof line, says);
        fwrite(line, 1, length, stdout);
        fclose(says);
    }
    FILE *fails = beside(L".fails", L"rb");
    return fails ? 3 : 0;
}
